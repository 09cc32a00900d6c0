/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What every concern shares: configuration, who is traced, the state of a task, counters, and how a record is sent.
 */
#ifndef FLAK_CORE_BPF_H
#define FLAK_CORE_BPF_H

#include "kernel.bpf.h"

/* Configuration, set before load; zero means off, and the verifier removes what is off. */
extern const volatile u32 page_shift;
extern const volatile bool all_files;
extern const volatile bool has_group_dead;
extern const volatile bool sees_enter;
extern const volatile bool traces_faults;
extern const volatile bool traces_mappings;
extern const volatile u8 op_of_nr[FLAK_MAX_SYSCALLS];

/* Shared memory with user space. */
extern struct flak_counters counters[FLAK_MAX_CPUS];
extern u32 next_task_id, next_file_id, next_path_id, next_claim_id, next_call_id;
extern u32 rename_gen;
extern u32 is_stopping;
/* FLAK itself: its process number for the kernel, and the pid namespace its user counts in. */
extern u32 own_tgid, own_level;
extern u64 own_pid_ns;

/* A file under one of its names, and what proves that the pointers still mean the same (see names.bpf.h). */
struct name_entry {
	u64 inode;
	u64 ino;
	u64 parent;
	u64 hash_len;
	u64 fingerprint; /* of all names up to the root */
	u32 ino_gen;
	u32 rename_gen;
	u32 file_id;
	u32 path_id;
	u32 mnt_id;
	u16 mode;
	u16 is_sent;
};

struct name_key {
	u64 dentry;
	u64 mnt;
};

/* A page fault under way. */
struct fault_state {
	u64 start_ns;
	u64 addr;
	u64 vma;
	u64 maj_flt;	/* the task's major faults before it */
	u32 first_page; /* window that fault-around was told to map */
	u32 page_count; /* 0: unknown */
	u32 flags;	/* FAULT_FLAG_* */
	u16 has_regs;
	u16 is_active;
};

/* The file that a copy under way reads; the one it writes is the call's own. */
struct copy_side {
	u64 file;
	u64 file_offset;
	u32 file_id;
	u32 path_id;
	u32 marks;
	s32 fd;
	u16 uses_position;
	u16 is_wanted;
	u32 pad;
};

/* All we keep of a task; the kernel frees it with the task. */
struct task_state {
	/* The call under way. `op` is FLAK_OP_NONE when it is of no interest. */
	u64 enter_ns;
	u64 file; /* struct file *, only to be compared and read from while the descriptor still holds it */
	u64 file_offset;
	u64 size_req;
	u32 file_id;
	u32 path_id;
	u32 marks;
	s32 fd;
	s32 nr; /* −1: none */
	u16 op;
	u16 uses_position; /* the offset is the file's own position */
	struct copy_side source;
	u32 base_path_id; /* directory a path argument starts from */
	/* The path of a blocked call: told and read by iterators only, for this call_key(). */
	u32 blocked_claim;
	u64 blocked_key;
	u32 task_id;
	u64 task;  /* struct task_struct * of which this is the state */
	u64 kiocb; /* struct io_kiocb * that it is submitting */
	/* Who it is: when one of these changes, so does task_id. */
	u64 comm[2];
	u64 css;
	u64 start_time;
	u64 process; /* tells processes apart: number, and when it was started (process_key) */
	u32 tid;
	u16 is_task_sent;
	u16 has_entered; /* the enter hook has seen a call of the task */
	u16 has_unread_iocb;
	u32 other_path_id; /* of a call with two paths, from name_metadata() to exit_metadata() */
	u64 copied[8];	   /* a struct of the program, which would take too much of the stack */
	/* The last file looked up: pays for the names map in a loop over one file. */
	struct name_key memo_key;
	struct name_entry memo;
	struct fault_state fault;
	/* Faults the kernel has accounted to the task, less those we saw: what get_user_pages brought in. */
	u64 faults_before;
	u64 faults_seen;
};

#if IS_OLD_KERNEL
/*
 * Before 5.11 tracing programs have no task storage. By a task's address; deleted when the task ends, and when another
 * begins there.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct task_state);
} tasks SEC(".maps");

static __always_inline struct task_state *known_state(struct task_struct *task)
{
	u64 key = (u64)task;

	return bpf_map_lookup_elem(&tasks, &key);
}

static __always_inline void forget_state(struct task_struct *task)
{
	u64 key = (u64)task;

	bpf_map_delete_elem(&tasks, &key);
}

/* An entry that was deleted is another task's soon. */
#define is_still_of(state, task_address) ((state)->task == (u64)(task_address))
#else
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_state);
} tasks SEC(".maps");

#define known_state(task) bpf_task_storage_get(&tasks, task, NULL, 0)
#define forget_state(task) /* the kernel frees it */
#define is_still_of(state, task_address) true
#endif

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} accesses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} meta SEC(".maps");

/* Where a string lies that is to be interned as a claim. */
enum claim_source {
	IN_PROGRAM = 0,	   /* at a user address of the current task */
	IN_KERNEL = 1,	   /* at a kernel address */
	IN_CLAIM_TEXT = 2, /* in the map of that name */
};

/* What stat(2) told of a file; all zero: nothing. */
struct stat_identity {
	u64 ino;
	u64 size;
	u32 dev;
	u32 mode;
};

struct file_ref {
	u32 file_id;
	u32 path_id;
	u32 marks;
	u16 mode;
	u16 pad;
};

#define FOLDED_OP_SHIFT 20 /* of an operation beside FLAK_FOLDED_MARKS */

/*
 * Functions of the other files. Global, not static, where they are called from several places: the kernel verifies a
 * global function once and not once for each way to reach it, but hands it memory and numbers only.
 */
/* core.bpf.c */
__hidden struct task_state *state_of(struct task_struct *task);
int identify(STATE_ARGUMENT);
/* folded.bpf.c */
int fold(u64 process, u64 file, u64 access, s64 result, u64 latency_ns);
/* names.bpf.c */
int intern(void);
/* metadata.bpf.c */
TAKES_MEMORY int read_found(struct stat_identity *found, u64 user, bool is_statx);
/* claims.bpf.c */
u64 intern_claim_found(u64 string, u64 base, u64 ino, u64 size, u64 device);

/*
 * The ids of a string that the program passed: path_id in the low half, in the high half the file_id of what stat(2) found
 * (`found`, may be NULL), 0: nothing. All zero when it could not be sent.
 */
static __always_inline u64 intern_claim(u64 string, u32 base_path_id, struct stat_identity *found, u32 lies_in)
{
	u64 base = (u64)lies_in << 32 | base_path_id;

	if (!found)
		return intern_claim_found(string, base, 0, 0, 0);
	return intern_claim_found(string, base, found->ino, found->size, (u64)found->dev << 32 | found->mode);
}
TAKES_MEMORY int send_exec(struct flak_process *process, u64 user_string);
/* attach.bpf.c */
int send_exec_mappings(void);

/* Registers with which a task entered the kernel last. */
static __always_inline struct pt_regs *regs_of(struct task_struct *task)
{
#if IS_OLD_KERNEL
	/* Before 5.15 no helper tells: at the end of the task's stack, which has 16 KiB or a page (THREAD_SIZE). */
	u64 stack = kaddr(task, struct task_struct, stack), size = page_shift > 14 ? 1ULL << page_shift : 1 << 14;

	return (struct pt_regs *)(stack + size - bpf_core_type_size(struct pt_regs));
#else
	return (struct pt_regs *)bpf_task_pt_regs(task);
#endif
}

static __always_inline struct flak_counters *cpu_counters(void)
{
	return &counters[bpf_get_smp_processor_id() & (FLAK_MAX_CPUS - 1)];
}

#define count(what) __sync_fetch_and_add(&cpu_counters()->what, 1)

/* Address of the number that a task has in a pid namespace of that level, with the namespace behind it. */
static __always_inline u64 upid_of(u64 task, u32 level)
{
	u64 pid = kaddr(task, struct task_struct, thread_pid);

	return pid + bpf_core_field_offset(struct pid, numbers) + (u64)level * bpf_core_type_size(struct upid);
}

/*
 * The number of a task in FLAK's own pid namespace, which is what its user sees; 0 when it has none there. As pid_nr_ns()
 * does (kernel/pid.c).
 */
static __always_inline u32 nr_in_our_ns(u64 task)
{
	u64 pid = kaddr(task, struct task_struct, thread_pid);
	u64 at = upid_of(task, own_level);

	if (!pid || kread(kcast(struct pid, pid), level) < own_level || kaddr(at, struct upid, ns) != own_pid_ns)
		return 0;
	return (u32)load_u64(at); /* upid.nr is the first member */
}

/* Faults the kernel has accounted to a task beyond those we saw: MAP_POPULATE, get_user_pages. Counted once each. */
static __always_inline void count_unseen_faults(struct task_struct *task, struct task_state *state)
{
	u64 unseen = tread(task, min_flt) + tread(task, maj_flt) - state->faults_before - state->faults_seen;

	if (!traces_faults || (s64)unseen <= 0)
		return;
	state->faults_before += unseen;
	__sync_fetch_and_add(&cpu_counters()->not_decoded_gup_fault, unseen);
}

static __always_inline bool is_wanted_mode(u16 mode)
{
	return all_files || (mode & S_IFMT) == S_IFREG || (mode & S_IFMT) == S_IFDIR;
}

/* The task's id is still right: same name, cgroup and thread number. */
static __always_inline bool is_same_task(struct task_struct *task, struct task_state *state)
{
#if IS_OLD_KERNEL
	u64 at = (u64)task + bpf_core_field_offset(struct task_struct, comm);
	u64 comm[2] = {load_u64(at), load_u64(at + 8)};
#else
	const u64 *comm = (const u64 *)task->comm;
#endif

	return state->is_task_sent && state->comm[0] == comm[0] && state->comm[1] == comm[1] &&
	       state->css == kaddr(task, struct task_struct, cgroups) && state->tid == (u32)tread(task, pid);
}

/* The id that stands for the task as it is now. */
static __always_inline u32 task_id_of(struct task_struct *task, struct task_state *state)
{
	if (!is_same_task(task, state))
		identify(hand_over(state));
	return state->task_id;
}

/*
 * Sending an access: number, reserve, fill, submit. BPF_RB_NO_WAKEUP because a wakeup for each event costs the traced
 * program three times as much; user space polls.
 */
static __always_inline struct flak_access *reserve_access(u32 task_id, u64 size)
{
	u32 cpu = bpf_get_smp_processor_id() & (FLAK_MAX_CPUS - 1);
	struct flak_counters *mine = &counters[cpu];
	struct flak_access *access;
	u32 seq;

	seq = take_number(&mine->matched);
	access = bpf_ringbuf_reserve(&accesses, size, 0);
	if (!access) {
		__sync_fetch_and_add(&mine->lost_ring_full, 1);
		return NULL;
	}
	__sync_fetch_and_add(&mine->submitted, 1);
	access->seq = seq;
	access->cpu = cpu;
	access->task_id = task_id;
	return access;
}

static __always_inline void fill_call(struct flak_access *access, struct task_state *state, s32 ret, u64 now)
{
	access->ts_ns = state->enter_ns;
	access->latency_ns = state->marks & FLAK_MARK_NO_ENTER ? FLAK_NONE : now - state->enter_ns;
	access->file_offset = state->file_offset;
	access->size_req = state->size_req;
	access->ret = ret;
	access->file_id = state->file_id;
	access->path_id = state->path_id;
	access->fd = state->fd;
	access->marks = state->marks | (is_restart(ret) ? FLAK_MARK_INTERRUPTED : 0);
	access->op = state->op;
}

/* Keeps the sums of an access for which there was no room. `ret` as in flak_access, which for faults is no result. */
static __always_inline void fold_lost(u64 process, u32 task_id, u32 file_id, u32 path_id, u32 marks, u16 op, s64 ret,
				      u64 latency_ns)
{
	marks = (marks | (is_restart(ret) ? FLAK_MARK_INTERRUPTED : 0)) & FLAK_FOLDED_MARKS;
	fold(process, (u64)file_id << 32 | path_id, (u64)task_id << 32 | (u32)op << FOLDED_OP_SHIFT | marks, ret,
	     latency_ns);
}

static __always_inline void fold_call(u32 task_id, struct task_state *state, s64 ret, u64 now)
{
	u64 latency_ns = state->marks & FLAK_MARK_NO_ENTER ? FLAK_NONE : now - state->enter_ns;

	fold_lost(state->process, task_id, state->file_id, state->path_id, state->marks, state->op, ret, latency_ns);
}

/* One slot of a call, filled. */
static __always_inline struct flak_access *reserve_call(u32 task_id, struct task_state *state, s32 ret, u64 now)
{
	struct flak_access *access = reserve_access(task_id, sizeof(*access));

	if (access)
		fill_call(access, state, ret, now);
	else
		fold_call(task_id, state, ret, now);
	return access;
}

/* Says in the filled first slot of a long access that there is a second one, and makes that empty. */
static __always_inline struct flak_operands *begin_operands(struct flak_access_long *record)
{
	record->access.marks |= FLAK_MARK_HAS_OPERANDS;
	record->slot_len = FLAK_ACCESS_SIZE;
	record->slot_zero = 0;
	__builtin_memset(&record->operands, 0, sizeof(record->operands));
	record->operands.new_fd = -1;
	record->operands.op = FLAK_OP_OPERANDS;
	return &record->operands;
}

/* Both slots of a long access, operands zeroed but for the call's own access. NULL when the ring is full. */
static __always_inline struct flak_operands *reserve_long(u32 task_id, struct task_state *state, s32 ret, u64 now)
{
	struct flak_access_long *record = (void *)reserve_access(task_id, sizeof(*record));

	if (!record) {
		fold_call(task_id, state, ret, now);
		return NULL;
	}
	fill_call(&record->access, state, ret, now);
	return begin_operands(record);
}

static __always_inline struct flak_access_long *record_of(struct flak_operands *operands)
{
	return (void *)operands - __builtin_offsetof(struct flak_access_long, operands);
}

static __always_inline void submit_long(struct flak_operands *operands)
{
	bpf_ringbuf_submit(record_of(operands), BPF_RB_NO_WAKEUP);
}

#endif /* FLAK_CORE_BPF_H */
