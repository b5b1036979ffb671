"""What is learned from the lake? Training sets, and the models that are made from them."""
