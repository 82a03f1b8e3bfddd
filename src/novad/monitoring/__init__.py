"""Is what a line sees still what it was calibrated on? Pure functions of figures, without any store."""
