"""Time of validity: the one clock skew, the life of a hop token, and the check that users' and hop tokens share. Pure.

All times are Unix seconds. A token is valid from `not_before` on and until just before `expires_at` (RFC 7519 sections
4.1.4 and 4.1.5), each widened by the skew.
"""

from __future__ import annotations

from typing import Final

from tokenmint.errors import TokenExpiredError, TokenNotYetValidError

# Clocks of machines that keep time by NTP differ by well under a second; half a minute is for those that just booted.
CLOCK_SKEW_SECONDS: Final = 30
# The longest life a verifier accepts of a hop token.
MAX_TOKEN_LIFE_SECONDS: Final = 120
# The life that the mint gives: the receiving gate reads the token when the request arrives, which a full queue and a slow
# connect can delay by seconds, not minutes. What the receiver must remember grows with it.
TOKEN_LIFE_SECONDS: Final = 60
# How long after a key's last signature its tokens are still accepted somewhere.
GRACE_SECONDS: Final = MAX_TOKEN_LIFE_SECONDS + CLOCK_SKEW_SECONDS


def check(*, now: int, not_before: float, expires_at: float) -> None:
    """Refuse what is not valid at `now`. Raises TokenNotYetValidError and TokenExpiredError."""
    if not_before > now + CLOCK_SKEW_SECONDS:
        raise TokenNotYetValidError(f"expected a token that is valid by now, got one that starts {not_before - now:.0f} s from now")
    if now >= expires_at + CLOCK_SKEW_SECONDS:
        raise TokenExpiredError(f"expected a token that is still valid, got one that expired {now - expires_at:.0f} s ago")
