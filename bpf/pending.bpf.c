// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * What is under way: which calls, page faults and requests have not returned, since when, and on which file?
 *
 * Iterators, run by user space: flak_claims for the paths of blocked calls, then flak_pending and flak_requests. Now and
 * then they tell what hangs (tells_hung). At the end each becomes a record of its own, while the hooks that see ends are
 * still on: whoever takes a call's number or a request's key, by a compare-and-swap, makes the record.
 */
#include "requests.bpf.h"
#include "filters.bpf.h"
#include "targets.bpf.h"
#include "vma.bpf.h"

u64 attached_ns = 0; /* when tracing began */
u32 tells_hung = 0;  /* flak_pending and flak_requests tell user space what is hanging, and send no records */
const volatile u64 hung_ns = 0;

#define TASK_ASLEEP 0x3	 /* TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE */
#define TASK_STOPPED 0xc /* __TASK_STOPPED | __TASK_TRACED */

/* Does the task wait for something, other than for leave to go on? */
static __always_inline bool is_asleep(struct task_struct *task)
{
	/* Called `state` before 5.14 ("sched: Change task_struct::state", 2f064a59a11f) */
	u32 state = bpf_core_field_exists(struct task_struct, __state) ? tread_anew(task, __state)
								       : kaddr(task, struct task_struct___state, state);

	return state & TASK_ASLEEP && !(state & TASK_STOPPED);
}

/*
 * Number of the system call that a task is in, as its registers tell; −1: none. They are those of its last entry to the
 * kernel: of a task that runs they mean nothing, unless a call was seen to begin.
 */
static __always_inline long current_nr(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	if ((long)reg(regs, ax) != -ENOSYS) /* which stands there from the entry until there is a result */
		return -1;
#endif
	return syscall_nr(regs);
}

static __always_inline bool is_path_op(u16 op)
{
	return (op >= FLAK_OP_OPEN && op <= FLAK_OP_CREAT) || (op >= FIRST_SHAPE && shape_of(op)->path);
}

/* Which argument of a path call the path is. */
static __always_inline u8 path_place(u16 op)
{
	if (op == FLAK_OP_OPENAT || op == FLAK_OP_OPENAT2)
		return 2;
	return op <= FLAK_OP_CREAT ? 1 : shape_of(op)->path;
}

/* Is the first argument of a path call the descriptor of a folder? */
static __always_inline bool names_folder(u16 op)
{
	return op == FLAK_OP_OPENAT || op == FLAK_OP_OPENAT2 || (op >= FIRST_SHAPE && shape_of(op)->dirfd);
}

/* Tells the call under way from others of its task: its beginning, or where that was not seen how often the task slept. */
static __always_inline u64 call_key(struct task_struct *task, struct task_state *state)
{
	u64 slept = kaddr(task, struct task_struct, nvcsw);

	barrier_var(slept); /* or clang makes one load through either pointer, which the verifier refuses */
	return state->nr >= 0 ? state->enter_ns : slept;
}

/* The operation that a task is blocked in and FLAK decodes, FLAK_OP_NONE: none. */
static __always_inline u16 blocked_op(struct task_struct *task, struct task_state *state, struct pt_regs *regs)
{
	long nr = current_nr(regs);

	if (state && state->nr >= 0)
		return state->nr == nr ? state->op : FLAK_OP_NONE;
	if (state && state->has_entered) /* it began when the enter hook was off already */
		return FLAK_OP_NONE;
	if (nr < 0 || nr >= FLAK_MAX_SYSCALLS || !is_decoded(nr) || !is_asleep(task) || is_compat(task))
		return FLAK_OP_NONE;
	return op_of_nr[nr & (FLAK_MAX_SYSCALLS - 1)];
}

/* A step down the tree of a file's pages, as xas_descend() does (include/linux/xarray.h). */
struct page_walk {
	u64 entry;
	u64 index;
};

static long page_step(u32 level, void *context)
{
	struct page_walk *walk = context;
	u64 node = walk->entry - 2;
	u64 slots = node + bpf_core_field_offset(struct xa_node, slots);
	u64 offset = walk->index >> kread(kcast(struct xa_node, node), shift) & 63;

	walk->entry = load_u64(slots + offset * 8);
	if ((walk->entry & 3) == 2 &&
	    walk->entry < 256) /* a sibling: the page is large, and stands in an earlier slot */
		walk->entry = load_u64(slots + (walk->entry >> 2 & 63) * 8);
	return (walk->entry & 3) != 2 || walk->entry <= 4096;
}

/*
 * Whether an address of another program can be read without waiting for a file: it is in memory of no file, or the file's
 * page is there and up to date. Whoever reads holds the program's mmap_lock while the kernel brings the page in, so to wait
 * for a server that does not answer would stop the program.
 */
static __always_inline bool is_resident(u64 mm, u64 addr)
{
	u64 vma = find_mapping(mm, addr);
	u64 file = vma ? kaddr(vma, struct vm_area_struct, vm_file) : 0;
	struct page_walk walk;

	if (!file)
		return vma;
	walk.index = offset_in_mapping(vma, addr) >> page_shift;
	walk.entry = kaddr(kaddr(file, struct file, f_mapping), struct address_space, i_pages.xa_head);
	if ((walk.entry & 3) == 2 && walk.entry > 4096) {
		if (walk.index >> kread(kcast(struct xa_node, walk.entry - 2), shift) > 63)
			return false; /* behind the last page */
		repeat(11, page_step, &walk);
	} else if (walk.index) {
		return false;
	}
	/* A number in place of a page is one that was evicted. */
	return walk.entry && !(walk.entry & 3) &&
	       load_u64(walk.entry) >> bpf_core_enum_value(enum pageflags, PG_uptodate) & 1;
}

/*
 * Paths of blocked calls, before flak_pending: the string lies in the memory of a program that is not running, so it may
 * have to be mapped, which only a program that may sleep can do. It may even have to wait for the target's mmap_lock; user
 * space gives it little time.
 */
SEC("iter.s/task")
int flak_claims(struct bpf_iter__task *ctx)
{
	struct task_state *own = state_of(current_task());
	struct task_struct *task = task_of(ctx);
	struct task_state *state;
	struct pt_regs *regs;
	u32 zero = 0, head;
	u64 path, mm;
	char *text;
	u16 op;

	if (!task || !own || !is_target(task))
		return 0;
	regs = regs_of(task);
	state = state_of(task);
	if (!state)
		return 0;
	op = blocked_op(task, state, regs);
	if (op == FLAK_OP_NONE || !is_path_op(op))
		return 0;
	text = bpf_map_lookup_elem(&claim_text, &zero);
	path = argument(regs, path_place(op));
	if (!text || state->blocked_key == call_key(task, state))
		return 0; /* known already */
	/* Up to the end of the page, then the rest, if there is a page. */
	mm = kaddr(task, struct task_struct, mm);
	head = FLAK_PATH_MAX - (path & (FLAK_PATH_MAX - 1));
	if (head > FLAK_PATH_MAX || !mm || !is_resident(mm, path) ||
	    bpf_copy_from_user_task(text, head, (void *)path, task, 0))
		return 0;
	if (head < FLAK_PATH_MAX) {
		if (is_resident(mm, path + head))
			bpf_copy_from_user_task(text + head, FLAK_PATH_MAX - head, (void *)(path + head), task, 0);
		else if (find_mapping(mm, path + head))
			return 0;
		else
			text[head] = 0;
	}
	state->blocked_claim =
		intern_claim(0,
			     state->nr >= 0 ? state->base_path_id
					    : base_of(task, own, names_folder(op) ? (s32)ARG1(regs) : AT_FDCWD),
			     NULL, IN_CLAIM_TEXT);
	state->blocked_key = call_key(task, state);
	return 0;
}

/* Takes a call that began before tracing into FLAK's own state, from its registers. False: of no interest. */
static __always_inline bool take_blocked_call(struct task_struct *task, struct task_state *own, u16 op,
					      struct pt_regs *regs)
{
	u16 mode = 0;
	s32 fd = (s32)ARG1(regs);

	own->op = op;
	own->nr = -1;
	/* Without the enter hook no call is seen to begin: this one may have done so a moment ago. */
	own->marks = FLAK_MARK_NO_ENTER | (sees_enter ? FLAK_MARK_ATTACHED : 0);
	own->enter_ns = sees_enter ? attached_ns : bpf_ktime_get_boot_ns();
	own->file = 0;
	own->file_id = 0;
	own->path_id = 0;
	own->fd = -1;
	own->file_offset = FLAK_NONE;
	own->size_req = FLAK_NONE;
	own->uses_position = false;
	if (is_path_op(op)) {
		if (names_folder(op) && fd != AT_FDCWD)
			own->fd = fd;
		return true;
	}
	if (op >= FLAK_OP_MUNMAP && op <= FLAK_OP_MSYNC)
		return false; /* they name an address of a file that may be gone */
	if (op == FLAK_OP_MMAP)
		fd = (s32)ARG5(regs);
	else if (op == FLAK_OP_SENDFILE64)
		fd = (s32)ARG2(regs);
	if (op == FLAK_OP_FICLONE && (u32)ARG2(regs) != FICLONE)
		return false;
	if (op == FLAK_OP_FCNTL && (u32)ARG2(regs) != F_DUPFD && (u32)ARG2(regs) != F_DUPFD_CLOEXEC)
		return false;
	if (!take_fd(task, own, fd, &mode))
		return false;
	if (op > FLAK_OP_PWRITEV2)
		return true;
	if (!is_vector_op(op))
		own->size_req = ARG3(regs);
	if ((mode & S_IFMT) != S_IFREG && (mode & S_IFMT) != S_IFBLK)
		return true;
	own->file_offset = uses_offset_argument(op) ? ARG4(regs) : kread(kcast(struct file, own->file), f_pos);
	return true;
}

/* Takes the call that a task was seen to begin into FLAK's own state. False: it has returned meanwhile. */
static __always_inline bool take_seen_call(struct task_state *own, struct task_state *state)
{
	u64 enter_ns = state->enter_ns;
	s32 nr = state->nr;

	own->op = state->op;
	own->marks = state->marks;
	own->enter_ns = enter_ns;
	own->file_id = state->file_id;
	own->path_id = state->path_id;
	own->fd = state->fd;
	own->file_offset = state->file_offset;
	own->size_req = state->size_req;
	own->uses_position = state->uses_position;
	if (own->op >= FLAK_OP_SENDFILE64 &&
	    own->op <= FLAK_OP_FICLONERANGE) { /* the target if wanted, else the source */
		if (own->uses_position) {
			own->op++;
		} else {
			own->file_offset = state->source.file_offset;
			own->file_id = state->source.file_id;
			own->path_id = state->source.path_id;
			own->marks = state->source.marks;
			own->fd = state->source.fd;
		}
	}
	return *(volatile s32 *)&state->nr == nr && *(volatile u64 *)&state->enter_ns == enter_ns;
}

/* Takes the page fault that a task waits in into FLAK's own state. False: it waits in none, or none of a file. */
static __always_inline bool take_blocked_fault(struct task_struct *task, struct task_state *own,
					       struct task_state *state, struct pt_regs *regs)
{
	struct file_ref ref = {};
	u64 vma, file, addr = state->fault.addr;

	/* A fault that ended in an error leaves its beginning behind: only a task that waits, and in no call, is in one. */
	if (!state->fault.is_active || state->fault.start_ns == FLAK_NONE || !is_asleep(task) || syscall_nr(regs) >= 0)
		return false;
	vma = find_mapping(kaddr(task, struct task_struct, mm), addr);
	file = vma ? kaddr(vma, struct vm_area_struct, vm_file) : 0;
	if (!file || ref_of_mapped(own, file, &ref))
		return false;
	own->op = FLAK_OP_FAULT;
	own->marks = ref.marks | (state->fault.flags & FAULT_FLAG_WRITE ? FLAK_MARK_IS_WRITE : 0);
	own->enter_ns = state->fault.start_ns;
	own->file_id = ref.file_id;
	own->path_id = ref.path_id;
	own->fd = 0;
	own->file_offset = offset_in_mapping(vma, addr & ~((1ULL << page_shift) - 1));
	own->size_req = addr;
	return true;
}

/*
 * Calls and faults that have not returned. At the end of a trace, when the hooks of calls are off, each becomes a record
 * of its own; before, user space asks which have been under way for long, and is told outside the rings.
 */
SEC("iter/task")
int flak_pending(struct bpf_iter__task *ctx)
{
	struct task_state *own = state_of(current_task());
	struct task_struct *task = task_of(ctx);
	struct flak_access told = {}, *access;
	struct task_state *state;
	struct pt_regs *regs;
	u64 now, age_ns, bytes;
	bool is_ours;
	u32 task_id;
	s32 seen_nr;
	u16 op;

	if (!task || !own)
		return 0;
	state = known_state(task);
	is_ours = is_target(task);
	if (state && is_ours && !tells_hung)
		count_unseen_faults(task, state);
	/* As in flak_exit: where tasks are judged at each event, the verdict at the beginning of the call holds. */
	if (!is_ours && !(judges_tasks && state && state->nr >= 0))
		return 0;
	regs = regs_of(task);
	op = blocked_op(task, state, regs);
	seen_nr = state ? state->nr : -1;
	if (op != FLAK_OP_NONE && seen_nr >= 0) {
		if (!take_seen_call(own, state))
			return 0;
	} else if (op != FLAK_OP_NONE) {
		state = state_of(task);
		if (!state || !take_blocked_call(task, own, op, regs))
			return 0;
	} else if (!state || !take_blocked_fault(task, own, state, regs)) {
		return 0;
	}
	if (op != FLAK_OP_NONE && is_path_op(op) && !own->path_id && state->blocked_key == call_key(task, state))
		own->path_id = state->blocked_claim;
	if (op != FLAK_OP_NONE && seen_nr < 0 && blocked_op(task, state, regs) != op)
		return 0; /* it has returned meanwhile, and its registers with it */

	now = bpf_ktime_get_boot_ns();
	age_ns = now - own->enter_ns; /* of an attached call, since tracing began */
	own->marks |= FLAK_MARK_UNFINISHED;
	if (tells_hung) {
		if (age_ns < hung_ns || is_unwanted_path(own->path_id))
			return 0;
		fill_call(&told, own, 0, now);
		told.task_id = task_id_of(task, state);
		told.latency_ns = age_ns;
		told.marks |= FLAK_MARK_HUNG;
		bpf_seq_write(ctx->meta->seq, &told, sizeof(told));
		return 0;
	}
	if (op == FLAK_OP_NONE)
		state->fault.is_active = false; /* when it ends it is none that was seen to begin */
	else if (seen_nr >= 0 && (!is_still_of(state, task) || exchange_if(&state->nr, seen_nr, -1) != seen_nr))
		return 0; /* it has returned meanwhile, and is recorded */
	/* What a vector asks for is read when the call returns: not known here, so it passes for large enough. */
	bytes = own->op <= FLAK_OP_PWRITEV2 && own->size_req == FLAK_NONE ? FLAK_NONE - 1 : own->size_req;
	if (own->op == FLAK_OP_FAULT)
		bytes = 1ULL << page_shift;
	if (is_cut(own->path_id, false, age_ns, bytes))
		return 0;
	task_id = task_id_of(task, state);
	own->process = state->process;
	access = reserve_call(task_id, own, 0, now);
	if (!access)
		return 0;
	access->latency_ns = own->marks & FLAK_MARK_NO_ENTER && !sees_enter ? FLAK_NONE : age_ns;
	bpf_ringbuf_submit(access, BPF_RB_NO_WAKEUP);
	return 0;
}

/* Has a request ended without a word? Those of a ring go with it; an iocb's program may have seen the end, in memory. */
static __always_inline bool may_have_ended(struct pending_request *request)
{
	return request->is_silent || !is_io_uring(request) || may_have_overflowed(request);
}

/* The program of an iocb has ended, and its requests with it. */
static __always_inline bool has_ended(struct pending_request *request)
{
	u64 owner;

	if (!bpf_core_field_exists(struct mm_struct, owner))
		return false;
	owner = kaddr(request->owner, struct mm_struct, owner);
	return !owner || kread(kcast(struct task_struct, owner), tgid) != request->process >> 32;
}

/* The same of requests. */
SEC("iter/bpf_map_elem")
int flak_requests(struct bpf_iter__bpf_map_elem *ctx)
{
	struct pending_request *request, *copy = other_request(COPIED_REQUEST);
	struct flak_access told = {};
	u32 *index = ctx->key;
	u64 key, now = bpf_ktime_get_boot_ns();
	bool is_gone;

	request = index ? request_at(*index & (REQUEST_SLOTS - 1)) : NULL;
	if (!request || !copy || request->key <= REQUEST_BUSY || !request->owner || request->is_unwanted)
		return 0;
	if (tells_hung && (request->is_silent || may_have_overflowed(request) || now - request->start_ns < hung_ns))
		return 0;
	key = request->key;
	if (!tells_hung && __sync_val_compare_and_swap(&request->key, key, REQUEST_BUSY) != key)
		return 0; /* it has ended meanwhile, and is recorded */
	__builtin_memcpy(copy, request, sizeof(*copy));
	copy->key = key;
	is_gone = is_io_uring(copy) ? !locate_request(copy) : has_ended(copy);
	if (copy->kind == REQUEST_SPLICE)
		show_source(copy);
	if (copy->is_unwanted)
		return 0;
	if (!tells_hung) {
		if (is_gone || may_have_ended(copy))
			copy->marks |= FLAK_MARK_RESULT_UNKNOWN;
		if (!is_gone && !copy->is_silent && !may_have_overflowed(copy))
			copy->marks |= FLAK_MARK_UNFINISHED;
		send_request(copy, 0, now);
		return 0;
	}
	if (is_gone || is_unwanted_path(copy->path_id ?: copy->claim_id))
		return 0;
	fill_request(&told, copy, 0, now - copy->start_ns);
	told.task_id = copy->task_id;
	told.path_id = told.path_id ?: copy->claim_id;
	told.marks |= FLAK_MARK_UNFINISHED | FLAK_MARK_HUNG | (may_have_ended(copy) ? FLAK_MARK_RESULT_UNKNOWN : 0);
	if (*(volatile u64 *)&request->key == key && *(volatile u64 *)&request->start_ns == copy->start_ns)
		bpf_seq_write(ctx->meta->seq, &told, sizeof(told));
	return 0;
}
