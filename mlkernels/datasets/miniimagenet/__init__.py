"""miniImageNet: its classes, and the forms that it is passed on in."""
