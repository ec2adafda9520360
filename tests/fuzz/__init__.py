"""Coverage-guided fuzzing of all that reads bytes from outside, with atheris (libFuzzer): ``make fuzz``.

``targets`` says what must hold for any input, and has first inputs made by the project's own encoders; ``requests`` is
the target that asks the server. ``harness`` runs one target under libFuzzer, ``__main__`` runs all of them, each in a
separate process. ``tests/unit/test_fuzz_targets.py`` runs the same targets on damaged inputs in ``make test``. Findings
became unit tests of the module at fault.
"""
