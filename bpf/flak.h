/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The one schema. Every byte that crosses from the kernel to Python is laid out here, and nowhere else:
 * build_bpf.py reads this file and writes src/flak/_records.py, and the object's BTF is compared with it
 * in a unit test and at load. Change it together with docs/events.md and FLAK_FORMAT_VERSION.
 *
 * Rules: fixed-width types, explicit padding, little endian. Enumerators are numbered, never renumbered and
 * never reused; new ones are appended. Times are CLOCK_BOOTTIME in ns, sizes and offsets are bytes.
 */
#ifndef FLAK_H
#define FLAK_H

/* Major version of the record layouts; a recording made by another major is refused. */
#define FLAK_FORMAT_VERSION 1

/* "No value" in a u64 slot: an unknown duration, a call without a file offset. */
#define FLAK_NONE 0xffffffffffffffff

/* Ring header (8) and payload (64): every record on the access ring is one or two slots of this stride. */
#define FLAK_SLOT_SIZE 72
#define FLAK_ACCESS_SIZE 64

#define FLAK_COMM_LEN 16
#define FLAK_PATH_MAX 4096
/* CPUs that have a row of counters; a power of two, so that the verifier's bound is a mask. */
#define FLAK_MAX_CPUS 1024
/* Highest process number the kernel can give out (PID_MAX_LIMIT), and words with a byte for each of them. */
#define FLAK_MAX_PIDS 4194304
#define FLAK_TRAIT_WORDS 1048576
_Static_assert(FLAK_TRAIT_WORDS * 4 == FLAK_MAX_PIDS, "a byte for each process number");
/* Processes, threads, users, cgroups that can be chosen; as many more can be excluded. */
#define FLAK_MAX_CHOICES 64
/* States of the machine that matches names of processes: 64 to a word. */
#define FLAK_NAME_WORDS 4
/* A path_id with this bit is a claim's: those are numbered apart, for some programs make up names without end. */
#define FLAK_CLAIM_BIT 0x80000000
/* Paths whose verdict fits: a bit for each path_id below this, of names and of claims. Others are left to user space. */
#define FLAK_MAX_VERDICTS 1048576
#define FLAK_VERDICT_WORDS 16384
_Static_assert(FLAK_VERDICT_WORDS * 64 == FLAK_MAX_VERDICTS, "a bit for each path_id");
/* Sums that are kept of accesses that found the ring full, in all. */
#define FLAK_FOLDED_SLOTS 16384
/* io_uring's opcodes that are counted by number; higher ones count as the last. */
#define FLAK_MAX_OPCODES 128
/* System call numbers looked at; every number FLAK decodes is below it on both architectures. */
#define FLAK_MAX_SYSCALLS 512

/*
 * What was done. The low byte is the operation, the high byte the road ("via"): 0 system call, 1 io_uring,
 * 2 aio, 3 page fault, 4 scheduler. Names are the kernel's, lower-cased: FLAK_OP_PREAD64 is "pread64".
 */
enum flak_op {
	FLAK_OP_NONE = 0,
	FLAK_OP_READ = 1,
	FLAK_OP_WRITE = 2,
	FLAK_OP_READV = 3,
	FLAK_OP_WRITEV = 4,
	FLAK_OP_PREAD64 = 5,
	FLAK_OP_PWRITE64 = 6,
	FLAK_OP_PREADV = 7,
	FLAK_OP_PWRITEV = 8,
	FLAK_OP_PREADV2 = 9,
	FLAK_OP_PWRITEV2 = 10,
	FLAK_OP_OPEN = 16,
	FLAK_OP_OPENAT = 17,
	FLAK_OP_OPENAT2 = 18,
	FLAK_OP_CREAT = 19,
	FLAK_OP_CLOSE = 20,
	FLAK_OP_DUP = 22,
	FLAK_OP_DUP2 = 23,
	FLAK_OP_DUP3 = 24,
	FLAK_OP_FCNTL = 25,
	FLAK_OP_LSEEK = 26,
	FLAK_OP_MMAP = 32,
	FLAK_OP_MUNMAP = 33,
	FLAK_OP_MREMAP = 34,
	FLAK_OP_MADVISE = 35,
	FLAK_OP_MSYNC = 36,
	/* Copies within the kernel: two records with one call_id, of the file that is read and of the one that is written. */
	FLAK_OP_SENDFILE64 = 40,
	FLAK_OP_SENDFILE64_TO = 41,
	FLAK_OP_SPLICE = 42,
	FLAK_OP_SPLICE_TO = 43,
	FLAK_OP_COPY_FILE_RANGE = 44,
	FLAK_OP_COPY_FILE_RANGE_TO = 45,
	FLAK_OP_FICLONE = 46,
	FLAK_OP_FICLONE_TO = 47,
	FLAK_OP_FICLONERANGE = 48,
	FLAK_OP_FICLONERANGE_TO = 49,
	/* Calls that look for a path, or at a descriptor. */
	FLAK_OP_NEWSTAT = 64,
	FLAK_OP_NEWLSTAT = 65,
	FLAK_OP_NEWFSTAT = 66,
	FLAK_OP_NEWFSTATAT = 67,
	FLAK_OP_STATX = 68,
	FLAK_OP_STATFS = 69,
	FLAK_OP_FSTATFS = 70,
	FLAK_OP_ACCESS = 71,
	FLAK_OP_FACCESSAT = 72,
	FLAK_OP_FACCESSAT2 = 73,
	FLAK_OP_RENAME = 74,
	FLAK_OP_RENAMEAT = 75,
	FLAK_OP_RENAMEAT2 = 76,
	FLAK_OP_LINK = 77,
	FLAK_OP_LINKAT = 78,
	FLAK_OP_SYMLINK = 79,
	FLAK_OP_SYMLINKAT = 80,
	FLAK_OP_UNLINK = 81,
	FLAK_OP_UNLINKAT = 82,
	FLAK_OP_MKDIR = 83,
	FLAK_OP_MKDIRAT = 84,
	FLAK_OP_RMDIR = 85,
	FLAK_OP_TRUNCATE = 86,
	FLAK_OP_FTRUNCATE = 87,
	FLAK_OP_FALLOCATE = 88,
	FLAK_OP_FSYNC = 89,
	FLAK_OP_FDATASYNC = 90,
	FLAK_OP_SYNC_FILE_RANGE = 91,
	FLAK_OP_READAHEAD = 92,
	FLAK_OP_FADVISE64 = 93,
	FLAK_OP_GETDENTS64 = 94,
	FLAK_OP_CLOSE_RANGE = 95,
	/* 0x100 + enum io_uring_op (include/uapi/linux/io_uring.h). */
	FLAK_OP_IO_URING_READV = 0x101,
	FLAK_OP_IO_URING_WRITEV = 0x102,
	FLAK_OP_IO_URING_FSYNC = 0x103,
	FLAK_OP_IO_URING_READ_FIXED = 0x104,
	FLAK_OP_IO_URING_WRITE_FIXED = 0x105,
	FLAK_OP_IO_URING_SYNC_FILE_RANGE = 0x108,
	FLAK_OP_IO_URING_FALLOCATE = 0x111,
	FLAK_OP_IO_URING_OPENAT = 0x112,
	FLAK_OP_IO_URING_CLOSE = 0x113,
	FLAK_OP_IO_URING_STATX = 0x115,
	FLAK_OP_IO_URING_READ = 0x116,
	FLAK_OP_IO_URING_WRITE = 0x117,
	FLAK_OP_IO_URING_FADVISE = 0x118,
	FLAK_OP_IO_URING_MADVISE = 0x119,
	FLAK_OP_IO_URING_OPENAT2 = 0x11c,
	FLAK_OP_IO_URING_SPLICE = 0x11e,
	FLAK_OP_IO_URING_RENAMEAT = 0x123,
	FLAK_OP_IO_URING_UNLINKAT = 0x124,
	FLAK_OP_IO_URING_MKDIRAT = 0x125,
	FLAK_OP_IO_URING_SYMLINKAT = 0x126,
	FLAK_OP_IO_URING_LINKAT = 0x127,
	FLAK_OP_IO_URING_FTRUNCATE = 0x137,
	FLAK_OP_IO_URING_READV_FIXED = 0x13c,
	FLAK_OP_IO_URING_WRITEV_FIXED = 0x13d,
	/* 0x180 + opcode: the file that such a copy writes. */
	FLAK_OP_IO_URING_SPLICE_TO = 0x19e,
	/* 0x200 + IOCB_CMD_* (include/uapi/linux/aio_abi.h). */
	FLAK_OP_AIO_PREAD = 0x200,
	FLAK_OP_AIO_PWRITE = 0x201,
	FLAK_OP_AIO_FSYNC = 0x202,
	FLAK_OP_AIO_FDSYNC = 0x203,
	FLAK_OP_AIO_PREADV = 0x207,
	FLAK_OP_AIO_PWRITEV = 0x208,
	FLAK_OP_FAULT = 0x300,
	FLAK_OP_FORK = 0x400,
	FLAK_OP_EXEC = 0x401,
	FLAK_OP_EXIT = 0x402,
	/* Written by user space over an access that was left out: its number is not missing. */
	FLAK_OP_PUT_ASIDE = 0xfe00,
	/* Second slot of a two-slot record: a struct flak_operands that belongs to the access before it. */
	FLAK_OP_OPERANDS = 0xffff,
};

/* What the table of system calls holds besides operations: calls that are only looked at or counted. */
enum flak_nr {
	FLAK_NR_EXEC = 248,	      /* execve, execveat */
	FLAK_NR_COMPAT_RENAMES = 249, /* the number means a rename in the 32-bit table only */
	FLAK_NR_RENAMES = 250,	      /* names may differ afterwards */
	FLAK_NR_IO_URING = 251,
	FLAK_NR_AIO = 252,	  /* io_submit */
	FLAK_NR_AIO_EVENTS = 253, /* io_getevents, io_pgetevents */
};
#define FLAK_NOT_DECODED 248 /* from here on */

/* Quality marks, bits of flak_access.marks. The names that machines read are these, lower-cased. */
enum flak_mark {
	FLAK_MARK_PATH_CLAIMED = 0x1,	 /* the path is the program's own string, not the kernel's */
	FLAK_MARK_PATH_TRUNCATED = 0x2,	 /* the path's first components are missing */
	FLAK_MARK_PATH_FAULT = 0x4,	 /* the path string could not be read */
	FLAK_MARK_NO_ENTER = 0x8,	 /* its beginning was not seen: file and position are those at exit */
	FLAK_MARK_INTERRUPTED = 0x10,	 /* ended by a signal with ERESTART*; the kernel may restart it */
	FLAK_MARK_UNFINISHED = 0x20,	 /* had not returned when tracing stopped; latency is its age */
	FLAK_MARK_COMPAT32 = 0x40,	 /* made through the 32-bit entry (reserved: those calls are only counted) */
	FLAK_MARK_DELETED = 0x80,	 /* the file had no name left */
	FLAK_MARK_ATTACHED = 0x100,	 /* was open or mapped before tracing began */
	FLAK_MARK_OFFSET_SHARED = 0x200, /* somebody else moved the file position meanwhile: the offset may be wrong */
	FLAK_MARK_OFFSET_FROM_SIZE = 0x400, /* O_APPEND or RWF_APPEND: the position the kernel chose */
	FLAK_MARK_RESULT_UNKNOWN =
		0x800, /* what came back is no result: it never ran (seccomp), or its end was not seen */
	FLAK_MARK_KERNEL_FAULT = 0x1000, /* page fault taken in kernel mode */
	FLAK_MARK_FD_REPLACED = 0x2000, /* another thread changed the descriptor meanwhile: the file may be the other */
	FLAK_MARK_HUNG = 0x4000,	/* no access but a notice: one is under way, and has been for long */
	FLAK_MARK_BY_EXEC = 0x8000,	/* mapped by the kernel for an exec, not by a call */
	/* Not marks for readers but operands of one bit, so that a fault fits one slot. */
	FLAK_MARK_IS_WRITE = 0x10000,
	FLAK_MARK_IS_MAJOR = 0x20000,
	FLAK_MARK_HAS_OPERANDS = 0x40000, /* the next slot is this access's struct flak_operands */
	FLAK_MARK_IS_SOURCE = 0x80000,	  /* the file a copy reads */
	FLAK_MARK_IS_TARGET = 0x100000,	  /* the file a copy writes */
};

/* Marks by which lost accesses are told apart: unfinished, interrupted, result_unknown, attached, is_write, is_major. */
#define FLAK_FOLDED_MARKS 0x30930

/*
 * First record class: one access. 64 bytes, fixed.
 *
 * size_req holds, by op: bytes asked for; the address of a fault; the length of a mapping; lseek's whence.
 * ret holds the system call's result (bytes, a descriptor, or -errno), 0 for a successful mmap, mremap and
 * lseek whose results do not fit, and the page count of a fault (0 when unknown).
 * fd holds for a fault how many of those pages lie before the faulting one.
 */
struct flak_access {
	__u64 ts_ns;	   /* start of the access */
	__u64 latency_ns;  /* FLAK_NONE when unknown */
	__u64 file_offset; /* FLAK_NONE when it does not apply */
	__u64 size_req;	   /* FLAK_NONE when unknown */
	__s32 ret;
	__u32 task_id;
	__u32 file_id; /* 0: no file */
	__u32 path_id; /* 0: no path */
	__s32 fd;      /* -1: none */
	__u32 seq;     /* per CPU, low 32 bits, taken before the record is reserved */
	__u32 marks;   /* enum flak_mark */
	__u16 op;      /* enum flak_op */
	__u16 cpu;
};
_Static_assert(sizeof(struct flak_access) == 64, "flak_access is one slot");

/* Second record class: rarer operands. Follows its access in the same reservation. 64 bytes, fixed. */
struct flak_operands {
	__u64 addr;	     /* address of the mapping after the call */
	__u64 old_addr;	     /* mremap: address before it */
	__u64 arg_offset;    /* the offset the program passed; any value is one, even -1 */
	__u32 prot;	     /* PROT_* */
	__u32 map_flags;     /* MAP_* or MREMAP_*; under FLAK_HAS_FLAGS those of another call, or its advice */
	__u32 open_flags;    /* O_* */
	__u32 mode;	     /* creation mode */
	__s32 new_fd;	     /* descriptor made by the call, -1: none */
	__u32 claim_id;	     /* path_id of the string the program passed, 0: none */
	__u32 other_file_id; /* reserved */
	__u32 other_path_id; /* the other name of a rename or link */
	__u32 call_id;	     /* links the records of one copy, 0: none */
	__u16 op;	     /* FLAK_OP_OPERANDS */
	__u16 has;	     /* enum flak_has: which of the above are set */
};
_Static_assert(sizeof(struct flak_operands) == 64, "flak_operands is one slot");

enum flak_has {
	FLAK_HAS_ADDR = 0x1,
	FLAK_HAS_PROT = 0x2,
	FLAK_HAS_MAP_FLAGS = 0x4,
	FLAK_HAS_OPEN_FLAGS = 0x8,
	FLAK_HAS_MODE = 0x10,
	FLAK_HAS_RET64 = 0x20, /* addr is the result, which flak_access.ret cannot hold (copy_file_range on NFS) */
	FLAK_HAS_ARG_OFFSET = 0x40,
	FLAK_HAS_FLAGS = 0x80,
};

/*
 * A two-slot record as reserved: the words between the slots are a ring header written by us, so that a span of
 * the ring reads as slots of one stride. The kernel rounds 136 + 8 to 144 = 2 * FLAK_SLOT_SIZE.
 */
struct flak_access_long {
	struct flak_access access;
	__u32 slot_len; /* FLAK_ACCESS_SIZE: what a ring header of one slot says */
	__u32 slot_zero;
	struct flak_operands operands;
};
_Static_assert(sizeof(struct flak_access_long) == 136, "two slots and one header");

/* Records of the meta ring. Each begins with type and size, so that a span of payloads can be walked. */
enum flak_meta {
	FLAK_META_NAME = 1,
	FLAK_META_TASK = 2,
	FLAK_META_PROCESS = 3,
	FLAK_META_CONTAINER = 4, /* written by user space */
	FLAK_META_FOLDED = 5,	 /* likewise */
};

enum flak_name_flag {
	FLAK_NAME_TRUNCATED = 0x1,  /* deeper or longer than FLAK walks: the first components are missing */
	FLAK_NAME_CLAIMED = 0x2,    /* bytes are the program's string; base_path_id is what it was relative to */
	FLAK_NAME_FAULT = 0x4,	    /* the program's string could not be read */
	FLAK_NAME_DELETED = 0x8,    /* had no name left when it was sent (reserved: FLAK_MARK_DELETED says it) */
	FLAK_NAME_DETACHED = 0x10,  /* its root is not a mount in any namespace (pipes, memfds, lazy umounts) */
	FLAK_NAME_FROM_STAT = 0x40, /* dev and ino are what stat(2) returned: the generation is not known */
	FLAK_NAME_WEAK = 0x20, /* dev, ino and ino_gen do not tell files apart here: generation 0, or btrfs snapshots */
};

/*
 * What file_id and path_id stand for. Bytes follow: a claimed string as it is; otherwise the names from the leaf
 * to the root, each ended by NUL. Ids are never given to something else within one run: a rename, another comm or
 * another cgroup get a new id.
 */
struct flak_name {
	__u16 type; /* FLAK_META_NAME */
	__u16 size; /* of the whole record, bytes included */
	__u32 path_id;
	__u32 file_id;
	__u32 dev; /* s_dev: major << 20 | minor */
	__u64 ino;
	__u32 ino_gen;	    /* i_generation */
	__u32 base_path_id; /* directory a claimed relative string starts from, 0: none */
	__u32 mnt_id;
	__u32 mnt_ns;	 /* inode number of the mount namespace that the path is of, 0: of none */
	__u32 fs_magic;	 /* s_magic */
	__u16 mode;	 /* i_mode */
	__u16 flags;	 /* enum flak_name_flag */
	__u64 file_size; /* i_size when sent */
};
_Static_assert(sizeof(struct flak_name) == 56, "flak_name");

/* What task_id stands for. */
struct flak_task {
	__u16 type; /* FLAK_META_TASK */
	__u16 size;
	__u32 task_id;
	__u64 start_time_ns; /* start_boottime of the thread */
	__u64 cgroup_id;
	__u32 pid;    /* process number in FLAK's own pid namespace; 0: it has none there */
	__u32 tid;    /* thread, likewise */
	__u32 ns_pid; /* process number in the task's own, innermost pid namespace */
	__u32 ns_tid;
	__u32 ppid; /* in FLAK's own pid namespace */
	__u32 uid;
	__u8 comm[FLAK_COMM_LEN];
	__u32 mnt_ns;	   /* inode number of its mount namespace, 0: left already */
	__u32 process_tag; /* tells apart processes with one `pid`: numbers come again, and 0 is many. 0: not told */
};
_Static_assert(sizeof(struct flak_task) == 72, "flak_task");

/* Which container a cgroup is, or is part of. Stands before the first task of the cgroup; bytes of the name follow. */
struct flak_container {
	__u16 type; /* FLAK_META_CONTAINER */
	__u16 size;
	__u32 reserved;
	__u64 cgroup_id;
};
_Static_assert(sizeof(struct flak_container) == 16, "flak_container");

/*
 * Accesses that found the ring full, put together by process, file, op and what became of them. The programs keep sums
 * from the beginning of the run; a record of the meta stream holds what has been added since the one before.
 */
struct flak_folded {
	__u16 type; /* FLAK_META_FOLDED; 0 in the programs' table: not filled in yet */
	__u16 size;
	__u32 task_id; /* of the first access: the process is what counts */
	__u32 file_id;
	__u32 path_id;
	__u32 marks; /* those that tell what became of it: FLAK_FOLDED_MARKS */
	__u16 op;
	__u16 has_failed;
	__u64 accesses;	  /* how many */
	__u64 result;	  /* sum of flak_access.ret where it is no error: bytes, or pages of faults */
	__u64 latency_ns; /* sum of the known ones */
	__u64 first_ns;	  /* begin of the first and of the last one */
	__u64 last_ns;
};
_Static_assert(sizeof(struct flak_folded) == 64, "flak_folded");

/* fork, exec and exit. An exec is followed by the bytes of argv[0], without a NUL. */
struct flak_process {
	__u16 type; /* FLAK_META_PROCESS */
	__u16 size;
	__u16 op; /* FLAK_OP_FORK, FLAK_OP_EXEC, FLAK_OP_EXIT */
	__u16 cpu;
	__u64 ts_ns;
	__u32 task_id;	 /* fork: the parent; exec: the task after it */
	__u32 seq;	 /* per CPU and ring, like flak_access.seq */
	__u32 child_pid; /* fork: the child; exec: thread number before the exec, 0: not known; exit: 0 */
	__u32 child_tid; /* fork: the child's thread; both in FLAK's own pid namespace */
	__s32 exit_code; /* exit: wait status as in wait(2) */
	__u32 is_last;	 /* exit: 1 when the process ended with this thread */
	__u32 file_id;	 /* exec: the program */
	__u32 path_id;
};
_Static_assert(sizeof(struct flak_process) == 48, "flak_process");

/*
 * Counters: one row per CPU, in memory that user space maps. They are added to atomically, because a program can
 * nest inside another. Names are those of the counters object (docs/events.md).
 */
struct flak_counters {
	__u64 matched;	      /* accesses that passed the filter; equals the sequence numbers given out */
	__u64 submitted;      /* accesses that reached the access ring */
	__u64 lost_ring_full; /* accesses that did not: the ring was full */
	__u64 meta_matched;   /* process events that passed the filter; equals their sequence numbers */
	__u64 meta_submitted;
	__u64 lost_meta_full;	     /* process events that did not reach the meta ring */
	__u64 lost_state_full;	     /* accesses without a task state to keep them in: they take no number */
	__u64 excluded_self;	     /* FLAK's own calls that would have matched */
	__u64 not_decoded_compat32;  /* calls through the 32-bit entry, by system calls made */
	__u64 not_decoded_gup_fault; /* faults without a record: MAP_POPULATE, get_user_pages */
	__u64 not_decoded_io_uring;  /* io_uring_enter calls, where requests are not seen */
	__u64 not_decoded_aio;	     /* io_submit calls, where requests are not decoded */
	__u64 folded;		     /* of lost_ring_full, those that are in the table of sums */
	__u64 names_sent;
	__u64 names_failed; /* names that found the meta ring full; sent again at the next access */
	__u64 vma_misses;   /* faults whose mapping could not be found */
	/* Accesses put aside in the kernel; not in `matched`: they take no sequence number. */
	__u64 filtered_path;
	__u64 filtered_failed;
	__u64 filtered_min_latency;
	__u64 filtered_min_size;
	__u64 reserved_1, reserved_2, reserved_3, reserved_4; /* whole cache lines */
};
_Static_assert(sizeof(struct flak_counters) == 192, "flak_counters is three cache lines");

#endif /* FLAK_H */
