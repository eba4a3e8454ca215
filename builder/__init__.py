"""build-repo: trained models in, a proven Triton model repository out."""

__version__ = "0.1.0"
