"""The steps of the dataflow, one file each: pure logic beside its wiring."""
