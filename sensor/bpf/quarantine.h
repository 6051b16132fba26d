/* What the quarantine's maps hold, byte by byte as `sensor/quarantine.py` reads it. All in the processor's order, addresses as 16 bytes. */
#ifndef HOPGATE_QUARANTINE_H
#define HOPGATE_QUARANTINE_H

#define SUBJECT_BYTES 128

/* By cgroup id. Later layouts begin the same way up to `subject`, so that a newer version can carry it over. */
struct quarantine {
	__u64 since_ns;
	__u32 origin, unused;
	char subject[SUBJECT_BYTES];
	__u64 refused_connections, refused_sockets, dropped_packets;
};

/* What a quarantined cgroup may still reach. */
struct allowed {
	__u64 cgroup_id;
	__u8 address[16];
	__u16 port;
	__u8 protocol, unused[5];
};

#endif
