"""Tables as rules of autoscalers."""
