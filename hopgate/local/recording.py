"""thin"""
from hopgate.audit.records import Change, Name
def run_change(operation, spec, ns):
    return Change(values={"operation": operation, "agent": str(spec.agent), "time": ns})
def name_question(agent, name, kind, answer, transport, ns):
    return Name(values={"agent": str(agent), "name": name, "type": kind, "answer": answer})
