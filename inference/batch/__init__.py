"""How are many questions answered? Question sets, and the run that answers what has no answer yet."""
