"""thin"""
from hopgate.audit.records import Decision
def decision(*, decision_id, wall_ns, latency_ns, check, verdict, minted_token_id, snapshot):
    return Decision(values={"id": decision_id, "caller": str(verdict.caller), "user": str(verdict.user), "reason": verdict.reason.value, "message": verdict.message,
      "operation": str(verdict.operation and verdict.operation.action), "resource": str(verdict.operation and verdict.operation.resource), "latency_us": latency_ns // 1000, "direction": verdict.direction.value})
