"""What every command printed and wrote: kept, so that a change of structure changes nothing."""
