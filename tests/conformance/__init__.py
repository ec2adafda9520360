"""Amazon's own SDK and toolkits, unmodified, against our code and our image. `make conformance` runs these tests."""
