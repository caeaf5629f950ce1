"""The command line of fluidwait; all logic lives in `fluid`, `thresholds` and `validation`."""
