"""What must this machine have? Java, jars, class archive, and what `doctor` looks for."""
