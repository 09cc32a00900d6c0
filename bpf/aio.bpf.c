// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Linux AIO: which iocb was submitted, on which file, at which offset, and what came of it?
 *
 * The kernel has no tracepoint here. What is asked for is read from the program's iocbs when io_submit begins; the results
 * from the events that io_getevents or io_pgetevents leaves in the program's memory. A program that reads the completion
 * ring itself, as fio and QEMU may, tells nobody: the record then comes when the iocb is submitted again, or at the end,
 * with the mark result_unknown.
 */
#include "requests.bpf.h"
#include "filters.bpf.h"

const volatile bool traces_aio = false;

#define AIO_MAX_BATCH 65536

struct user_iocb { /* include/uapi/linux/aio_abi.h */
	u64 aio_data;
	u32 aio_key;
	u32 aio_rw_flags;
	u16 aio_lio_opcode;
	s16 aio_reqprio;
	u32 aio_fildes;
	u64 aio_buf;
	u64 aio_nbytes;
	s64 aio_offset;
	u64 aio_reserved2;
	u32 aio_flags;
	u32 aio_resfd;
};

struct user_event {
	u64 data;
	u64 obj; /* address of the iocb */
	s64 res;
}; /* and another result, which says no more */

#define USER_EVENT_SIZE 32

enum {
	AIO_CMD_PREAD = 0,
	AIO_CMD_PWRITE = 1,
	AIO_CMD_FSYNC = 2,
	AIO_CMD_FDSYNC = 3,
	AIO_CMD_PREADV = 7,
	AIO_CMD_PWRITEV = 8,
};

#define OP_OF_IOCB(command) (0x200 + (command))

/* One call's way through its iocbs or events. */
struct aio_walk {
	u64 array;
	u64 mm;
	u64 now;
	s32 ret;
	u16 marks;
	u16 is_end; /* of io_submit: what could not be read at its beginning */
};

static __always_inline bool is_decoded_iocb(u32 command)
{
	return command <= AIO_CMD_FDSYNC || command == AIO_CMD_PREADV || command == AIO_CMD_PWRITEV;
}

static __always_inline bool is_writing_iocb(u32 command)
{
	return command == AIO_CMD_PWRITE || command == AIO_CMD_PWRITEV;
}

static __always_inline bool appends(u64 file, u32 rw_flags)
{
	return !(rw_flags & RWF_NOAPPEND) &&
	       (rw_flags & RWF_APPEND || kread(kcast(struct file, file), f_flags) & O_APPEND);
}

/* What an iocb asks for. Its descriptor still is the program's when it is submitted. */
static __always_inline void describe_iocb(struct task_state *state, struct pending_request *request,
					  struct user_iocb *iocb)
{
	u64 file = file_of_fd(bpf_get_current_task_btf(), iocb->aio_fildes);
	u32 command = iocb->aio_lio_opcode;
	struct file_ref ref = {};

	request->cookie = iocb->aio_data;
	request->op = OP_OF_IOCB(command);
	request->fd = iocb->aio_fildes;
	request->kind = command == AIO_CMD_FSYNC || command == AIO_CMD_FDSYNC ? REQUEST_SYNC : REQUEST_TRANSFER;
	if (file && ref_of_file(state, file, &ref)) {
		request->is_unwanted = true;
		return;
	}
	request->file_id = ref.file_id;
	request->path_id = ref.path_id;
	request->marks |= ref.marks;
	if (request->kind == REQUEST_SYNC)
		return;
	request->size_req = command >= AIO_CMD_PREADV ? vector_size(iocb->aio_buf, iocb->aio_nbytes) : iocb->aio_nbytes;
	if (file && (ref.mode & S_IFMT) != S_IFREG && (ref.mode & S_IFMT) != S_IFBLK)
		return; /* a stream has no offset */
	request->file_offset = iocb->aio_offset;
	if (file && is_writing_iocb(command) && appends(file, iocb->aio_rw_flags)) {
		/* Where it was appended stands in the kernel's own copy, out of reach. */
		request->marks |= FLAK_MARK_OFFSET_FROM_SIZE;
		request->arg_offset = iocb->aio_offset;
		request->file_offset = FLAK_NONE;
		request->has = FLAK_HAS_ARG_OFFSET;
		request->is_long = true;
	}
}

/* Takes into a request what the iocb at that address asks for. False: it is none that FLAK knows. */
static __always_inline bool take_iocb(struct pending_request *request, struct user_iocb *iocb, u64 now, u32 marks)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);

	if (!state)
		return false;
	request->task_id = task_id_of(task, state);
	request->process = state->process;
	request->start_ns = now;
	request->marks = marks;
	describe_iocb(state, request, iocb);
	request->owner = kaddr(task, struct task_struct, mm);
	return true;
}

/* A slot for the iocb at that address, which is being submitted. Without one it is put together when it completes. */
__noinline int begin_iocb(u64 address, u64 now, u32 marks)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);
	struct pending_request *request;
	struct user_iocb *iocb;

	if (!state)
		return 0;
	iocb = (void *)state->copied;
	if (bpf_probe_read_user(iocb, sizeof(*iocb), (void *)address)) {
		state->has_unread_iocb =
			true; /* its page is not there; the kernel will have brought it in by the end */
		return 0;
	}
	if (!is_decoded_iocb(iocb->aio_lio_opcode))
		return 0;
	request = request_at(take_request(address, kaddr(task, struct task_struct, mm)));
	if (request && !take_iocb(request, iocb, now, marks))
		drop_request(request);
	return 0;
}

/* Sends the record of an iocb that completed and that no slot holds: it was submitted before tracing began, or with others
 * than fit. The iocb may still say what it was.
 */
__noinline int send_late_iocb(u64 address, s64 result, u64 now)
{
	struct task_state *state = state_of(bpf_get_current_task_btf());
	struct pending_request *request = other_request(LATE_REQUEST);
	struct user_iocb *iocb;

	if (!state || !request)
		return 0;
	iocb = (void *)state->copied;
	if (bpf_probe_read_user(iocb, sizeof(*iocb), (void *)address) || !is_decoded_iocb(iocb->aio_lio_opcode))
		return 0;
	clear_request(request);
	if (take_iocb(request, iocb, now, FLAK_MARK_NO_ENTER) && !request->is_unwanted)
		send_request(request, result, now);
	return 0;
}

static long submit_iocb(u32 index, void *context)
{
	struct aio_walk *walk = context;
	struct pending_request *before;
	u64 address;

	if (bpf_probe_read_user(&address, sizeof(address), (void *)(walk->array + (u64)index * 8)))
		return 1;
	before = request_at(find_request(address, walk->mm));
	if (before && walk->is_end) /* known from the beginning */
		return 0;
	if (before) {
		end_unseen(before, walk->now);
		drop_request(before);
	}
	begin_iocb(address, walk->now, walk->marks);
	return 0;
}

/* Iocbs that io_submit did not take: the first with the error that it returned, the others without a word. */
static long refuse_iocb(u32 index, void *context)
{
	struct aio_walk *walk = context;
	struct pending_request *request;
	u32 first = walk->ret > 0 ? walk->ret : 0;
	u64 address;

	if (bpf_probe_read_user(&address, sizeof(address), (void *)(walk->array + (u64)(first + index) * 8)))
		return 1;
	request = request_at(find_request(address, walk->mm));
	if (!request)
		return 0;
	if (!claim_request(request, address))
		return 0;
	if (walk->ret < 0 && !index && !request->is_unwanted)
		send_request(request, walk->ret, walk->now);
	drop_request(request);
	return 0;
}

/* The mm of the current task. Not inlined, for the room that its reading takes. */
static __noinline u64 own_mm(void)
{
	return current_mm();
}

/* The result that an event tells of an iocb. */
static long complete_iocb(u32 index, void *context)
{
	struct aio_walk *walk = context;
	struct pending_request *request;
	struct user_event event;

	if (bpf_probe_read_user(&event, sizeof(event), (void *)(walk->array + (u64)index * USER_EVENT_SIZE)))
		return 1;
	request = request_at(find_request(event.obj, walk->mm));
	if (!request) {
		if (!is_stopping)
			send_late_iocb(event.obj, event.res, walk->now);
		return 0;
	}
	if (!claim_request(request, event.obj))
		return 0;
	if (request->cookie == event.data && !request->is_unwanted)
		send_request(request, event.res, walk->now);
	drop_request(request);
	return 0;
}

/* io_submit begins. It leaves its number in the state, so that its end knows that its beginning was seen. */
int enter_aio(struct task_state *state, long nr)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = regs_of(task);
	struct aio_walk walk = {
		.array = ARG3(regs), .mm = kaddr(task, struct task_struct, mm), .now = bpf_ktime_get_boot_ns()};
	s64 size = ARG2(regs);

	if (!state)
		return 0;
	state->nr = nr;
	state->op = FLAK_OP_NONE;
	state->has_unread_iocb = false;
	if (size > 0)
		bpf_loop(size < AIO_MAX_BATCH ? size : AIO_MAX_BATCH, submit_iocb, &walk, 0);
	return 0;
}

/* io_getevents or io_pgetevents ends. */
int exit_aio_events(u32 unused, long ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = regs_of(task);
	struct aio_walk walk = {.array = ARG4(regs), .mm = own_mm(), .now = bpf_ktime_get_boot_ns()};

	if (ret > 0)
		bpf_loop(ret < AIO_MAX_BATCH ? ret : AIO_MAX_BATCH, complete_iocb, &walk, 0);
	return 0;
}

/* io_submit ends. */
int exit_aio(struct task_state *state, long ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = regs_of(task);
	struct aio_walk walk = {.array = ARG3(regs),
				.mm = kaddr(task, struct task_struct, mm),
				.now = bpf_ktime_get_boot_ns(),
				.ret = ret};
	s64 size = ARG2(regs);

	if (!state)
		return 0;
	if (size > AIO_MAX_BATCH)
		size = AIO_MAX_BATCH;
	if (state->nr != syscall_nr(regs) || state->has_unread_iocb) { /* its beginning was not seen */
		walk.marks = FLAK_MARK_NO_ENTER;
		walk.is_end = state->nr == syscall_nr(regs);
		if (ret > 0 && !is_stopping)
			bpf_loop(ret < AIO_MAX_BATCH ? ret : AIO_MAX_BATCH, submit_iocb, &walk, 0);
		if (!walk.is_end)
			return 0;
	}
	if (ret < 0)
		ret = 0;
	if (ret < size)
		bpf_loop(size - ret, refuse_iocb, &walk, 0);
	state->nr = -1;
	return 0;
}
