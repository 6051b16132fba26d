"""thin"""

from __future__ import annotations

import asyncio

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class Resolver:
    def __init__(self, registry, agent, record):
        self.r, self.a, self.rec = registry, agent, record
        self.t = []
        self.counters = {}
        self.s = None

    async def start(self, sockets):
        loop = asyncio.get_running_loop()
        for s in sockets.datagram:
            loop.add_reader(s, self._udp, s)
        self.s = sockets

    def _udp(self, s):
        data, peer = s.recvfrom(4096)
        q = dns.message.from_wire(data)
        name = q.question[0].name.to_text(omit_final_dot=True).lower()
        rep = dns.message.make_response(q)
        e = self.r().by_host.get(name)
        t = dns.rdatatype.to_text(q.question[0].rdtype)
        if e is None:
            rep.set_rcode(dns.rcode.NXDOMAIN)
        elif t == "A":
            rep.answer.append(dns.rrset.from_text(q.question[0].name, 5, "IN", "A", e.address))
        self.rec(self.a, name, t, "Answered" if e else "NxDomain", "UDP")
        s.sendto(rep.to_wire(), peer)

    async def stop(self):
        if self.s is None:
            return
        loop = asyncio.get_running_loop()
        for s in self.s.datagram:
            loop.remove_reader(s)
            s.close()
        for s in self.s.listening:
            s.close()
