"""What the TensorFlow source formats share: their files read without TensorFlow, the running model, the routes."""
