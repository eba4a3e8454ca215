"""What is known of OpenVINO beyond the backend's Protocol."""
