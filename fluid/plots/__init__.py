"""Pictures of the fluid model, and the style that all pictures share."""
