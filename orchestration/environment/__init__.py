"""What must this machine have? Java, the Delta jars, the class archive, and nothing of the network."""
