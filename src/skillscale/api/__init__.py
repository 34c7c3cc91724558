"""The Python interface, the way people work in notebooks: ``runs``, then ``fit``, then questions to ``SkillLaws``.

It calls the same functions as the command line, so that numbers are equal to the last digit.
"""
