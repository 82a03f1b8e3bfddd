"""novad beside the methods that people use today, on the same images and by the same figures."""
