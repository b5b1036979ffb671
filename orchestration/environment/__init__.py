"""What must this machine have? Java, the Delta jars, the class archive, and libraries set to work offline."""
