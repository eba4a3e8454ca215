"""Steps in Python code: which files they are made of, the model that runs them, and the packages they need."""
