"""thin"""
class AuditError(Exception):
    code = "AuditError"
class SpoolError(AuditError):
    code = "RecordFailed"
