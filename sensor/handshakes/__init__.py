"""What can be read of a connection's first bytes before they are sealed: names, protocols and a fingerprint. Pure.

Any bytes give a value or one of `errors`. No loop runs longer than its input, and whatever is kept between two inputs has a bound.
"""
