"""The explorer of regions: sliders, region and latencies, in a notebook or a page of its own."""
