// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * io_uring: which requests were submitted, on which file, at which offset, with which result, after what time?
 *
 * Two tracepoints. io_uring_submit_req (io_uring_submit_sqe before 6.3) fires in the submitting thread, when the operands
 * are parsed and the file is not looked up yet; io_uring_complete fires where the result is posted, in any thread of the
 * program or in a kernel worker, when the request still holds its file. So operands, paths and the submitter are taken at
 * the first, file and result at the second. With IORING_SETUP_SQPOLL the submitting thread is the polling one.
 *
 * What a request asks for lies over its beginning, laid out by opcode (io_uring/ in the kernel's source: struct io_rw in
 * rw.c, io_open in openclose.c, and so on).
 */
#include "requests.bpf.h"
#include "filters.bpf.h"
#include "targets.bpf.h"
#include "vma.bpf.h"

/*
 * Types of other kernels. libbpf drops what follows the three underscores, and asks whether the type has the field. None
 * may be of a name that no kernel type has: libbpf would look for it in the modules, which takes CAP_SYS_ADMIN.
 */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Before 6.13 ("io_uring/rsrc: unify file and buffer node tables") */
struct io_file_table___flat {
	void *files; /* struct io_fixed_file *: a word each */
};

struct io_ring_ctx___flat {
	unsigned int nr_user_files;
	struct io_file_table___flat file_table;
};

/* Before 6.13 ("io_uring: move struct io_kiocb from task_struct to io_uring_task") */
struct io_kiocb___task {
	struct task_struct *task;
};

/* struct io_ftrunc, 6.9 on, has its length where struct io_sync has it. */
struct io_sync___ftrunc {
	loff_t len;
};

/*
 * 7.0 on: names are wrapped (struct delayed_filename), and gone when the request has run. The name that nobody asks for is
 * of no type, for there is none of it in older kernels.
 */
struct delayed_name {
	struct filename *name;
};
#define DELAYED(type, ...)                                                                                             \
	struct type##___delayed {                                                                                      \
		struct delayed_name __VA_ARGS__;                                                                       \
	}
DELAYED(io_open, filename);
DELAYED(io_statx, filename);
DELAYED(io_unlink, filename);
DELAYED(io_mkdir, filename);
DELAYED(io_rename, oldpath, newpath);
DELAYED(io_link, oldpath, newpath);

#pragma clang attribute pop

#define has_delayed_names (!bpf_core_field_exists(struct io_statx, filename))

/* A struct filename * of a request. Each way ends in a barrier: an offset that a kernel has not must not be computed. */
#define kname(req, type, field)                                                                                        \
	({                                                                                                             \
		u64 __at = (u64)(req);                                                                                 \
		if (bpf_core_field_exists(struct type, field)) {                                                       \
			__at += bpf_core_field_offset(struct type, field);                                             \
			barrier_var(__at);                                                                             \
		} else {                                                                                               \
			__at += bpf_core_field_offset(struct type##___delayed, field);                                 \
			barrier_var(__at);                                                                             \
		}                                                                                                      \
		load_u64(__at);                                                                                        \
	})

const volatile bool has_cqe_argument = false; /* io_uring_complete passes the completion as a struct */
const volatile bool traces_io_uring = false;  /* the hooks are on */

#define OVERFLOW_SLOTS 64

u64 undecoded_opcodes[FLAK_MAX_OPCODES] = {}; /* requests that are not decoded, by opcode */

/*
 * When a ring last had no room for a completion, by a hash of its address: such a completion is not traced, so a request
 * from before that seems to be under way when it may have ended.
 */
u64 overflowed_ns[OVERFLOW_SLOTS] = {};

static __always_inline u64 *overflow_of(u64 ring)
{
	return &overflowed_ns[(ring >> 6) * 0x9e3779b97f4a7c15ULL >> 58 & (OVERFLOW_SLOTS - 1)];
}

static __always_inline bool may_have_overflowed(struct pending_request *request)
{
	return is_io_uring(request) && request->start_ns <= *overflow_of(request->owner);
}

/* The low bits of a request's flags are those of its entry (include/uapi/linux/io_uring.h). */
#define IOSQE_FIXED_FILE 0x1
#define IOSQE_BUFFER_SELECT 0x20
#define IOSQE_CQE_SKIP_SUCCESS 0x40
#define IORING_CQE_F_MORE 0x2
#define IORING_FILE_INDEX_ALLOC 0xffffffff
#define SPLICE_F_FD_IN_FIXED 0x80000000
#define FIXED_FILE_MASK ~7ULL /* the low bits of a registered file's address are flags */

#define OP_OF_OPCODE(opcode) (0x100 + (opcode))

/* By opcode; those not named are not known. Room for all that are numbered today, and as many more. */
const volatile u8 kind_of_opcode[FLAK_MAX_OPCODES] = {
	[0] = REQUEST_IGNORED,	      /* nop */
	[1] = REQUEST_TRANSFER,	      /* readv */
	[2] = REQUEST_TRANSFER,	      /* writev */
	[3] = REQUEST_SYNC,	      /* fsync */
	[4] = REQUEST_TRANSFER,	      /* read_fixed */
	[5] = REQUEST_TRANSFER,	      /* write_fixed */
	[6] = REQUEST_IGNORED,	      /* poll_add */
	[7] = REQUEST_IGNORED,	      /* poll_remove */
	[8] = REQUEST_SYNC,	      /* sync_file_range */
	[9] = REQUEST_IGNORED,	      /* sendmsg */
	[10] = REQUEST_IGNORED,	      /* recvmsg */
	[11] = REQUEST_IGNORED,	      /* timeout */
	[12] = REQUEST_IGNORED,	      /* timeout_remove */
	[13] = REQUEST_IGNORED,	      /* accept */
	[14] = REQUEST_IGNORED,	      /* async_cancel */
	[15] = REQUEST_IGNORED,	      /* link_timeout */
	[16] = REQUEST_IGNORED,	      /* connect */
	[17] = REQUEST_ALLOCATE,      /* fallocate */
	[18] = REQUEST_OPEN,	      /* openat */
	[19] = REQUEST_CLOSE,	      /* close */
	[20] = REQUEST_IGNORED,	      /* files_update */
	[21] = REQUEST_STATX,	      /* statx */
	[22] = REQUEST_TRANSFER,      /* read */
	[23] = REQUEST_TRANSFER,      /* write */
	[24] = REQUEST_ADVICE,	      /* fadvise */
	[25] = REQUEST_MEMORY_ADVICE, /* madvise */
	[26] = REQUEST_IGNORED,	      /* send */
	[27] = REQUEST_IGNORED,	      /* recv */
	[28] = REQUEST_OPEN,	      /* openat2 */
	[29] = REQUEST_IGNORED,	      /* epoll_ctl */
	[30] = REQUEST_SPLICE,	      /* splice */
	[31] = REQUEST_IGNORED,	      /* provide_buffers */
	[32] = REQUEST_IGNORED,	      /* remove_buffers */
	[33] = REQUEST_IGNORED,	      /* tee: pipes only */
	[34] = REQUEST_IGNORED,	      /* shutdown */
	[35] = REQUEST_RENAME,	      /* renameat */
	[36] = REQUEST_UNLINK,	      /* unlinkat */
	[37] = REQUEST_MKDIR,	      /* mkdirat */
	[38] = REQUEST_SYMLINK,	      /* symlinkat */
	[39] = REQUEST_LINK,	      /* linkat */
	[40] = REQUEST_IGNORED,	      /* msg_ring */
	[45] = REQUEST_IGNORED,	      /* socket */
	[47] = REQUEST_IGNORED,	      /* send_zc */
	[48] = REQUEST_IGNORED,	      /* sendmsg_zc */
	[49] = REQUEST_UNKNOWN,	      /* read_multishot: its completions do not say whose they are */
	[50] = REQUEST_IGNORED,	      /* waitid */
	[51] = REQUEST_IGNORED,	      /* futex_wait */
	[52] = REQUEST_IGNORED,	      /* futex_wake */
	[53] = REQUEST_IGNORED,	      /* futex_waitv */
	[54] = REQUEST_IGNORED,	      /* fixed_fd_install */
	[55] = REQUEST_TRUNCATE,      /* ftruncate */
	[56] = REQUEST_IGNORED,	      /* bind */
	[57] = REQUEST_IGNORED,	      /* listen */
	[58] = REQUEST_IGNORED,	      /* recv_zc */
	[59] = REQUEST_IGNORED,	      /* epoll_wait */
	[60] = REQUEST_TRANSFER,      /* readv_fixed */
	[61] = REQUEST_TRANSFER,      /* writev_fixed */
	[62] = REQUEST_IGNORED,	      /* pipe */
};

/* When a request is described. One that was refused has told nothing of what it asked for. */
enum { REQUEST_SUBMITTED = 0, REQUEST_LATE = 1, REQUEST_REFUSED = 2 };

static __always_inline u32 kind_of(u32 opcode)
{
	return opcode < FLAK_MAX_OPCODES ? kind_of_opcode[opcode & (FLAK_MAX_OPCODES - 1)] : REQUEST_UNKNOWN;
}

static __always_inline bool is_vector_opcode(u32 opcode)
{
	return opcode == 1 || opcode == 2 || opcode == 60 || opcode == 61;
}

static __always_inline bool is_write_opcode(u32 opcode)
{
	return opcode == 2 || opcode == 5 || opcode == 23 || opcode == 61;
}

static __always_inline struct io_kiocb *request_of(u64 req)
{
	return kcast(struct io_kiocb, req);
}

/* struct file * that a ring has registered under a number, 0: none. */
static __always_inline u64 registered_file(u64 ring, u32 slot)
{
	if (bpf_core_field_exists(struct io_file_table, data)) {
		u64 nodes = kaddr(ring, struct io_ring_ctx, file_table.data.nodes);
		u64 node;

		if (slot >= kread(kcast(struct io_ring_ctx, ring), file_table.data.nr))
			return 0;
		node = load_u64(nodes + (u64)slot * 8);
		return node ? kaddr(node, struct io_rsrc_node, file_ptr) & FIXED_FILE_MASK : 0;
	}
	if (slot >= kread(kcast(struct io_ring_ctx___flat, ring), nr_user_files))
		return 0;
	return load_u64(kaddr(ring, struct io_ring_ctx___flat, file_table.files) +
			(u64)slot * 8 /* sizeof(struct io_fixed_file) */) &
	       FIXED_FILE_MASK;
}

/* struct task_struct * of the thread that submitted a request. */
static __always_inline u64 submitter_of(u64 req)
{
	if (bpf_core_field_exists(struct io_kiocb, tctx)) {
		u64 tctx = kaddr(req, struct io_kiocb, tctx);

		if (bpf_core_field_exists(struct io_uring_task, task))
			return tctx ? kaddr(tctx, struct io_uring_task, task) : 0;
	}
	if (bpf_core_field_exists(struct io_kiocb___task, task))
		return kaddr(req, struct io_kiocb___task, task);
	return 0;
}

/* Ids of the file of a request, if it has one by now. −1: of a kind that is of no interest. */
static __always_inline int take_file(struct task_state *state, struct pending_request *request, u64 file)
{
	struct file_ref ref = {};

	if (!file)
		return 0;
	if (ref_of_file(state, file, &ref)) {
		request->is_unwanted = true;
		return -1;
	}
	request->is_unwanted = false;
	request->file_id = ref.file_id;
	request->path_id = ref.path_id;
	request->marks |= ref.marks;
	request->is_stream = (ref.mode & S_IFMT) != S_IFREG && (ref.mode & S_IFMT) != S_IFBLK;
	return 0;
}

/* A statx of the descriptor itself: its path is empty, and it says so. */
static __always_inline bool is_of_descriptor(struct pending_request *request, u64 req)
{
	u64 filename = kname(req, io_statx, filename);
	char first = 0;

	if (filename)
		bpf_probe_read_kernel(&first, 1, (void *)kaddr(filename, struct filename, name));
	return !first && request->flags & AT_EMPTY_PATH;
}

/* The claim that a struct filename holds. */
static __always_inline u32 claim_of(u64 filename, u32 base_path_id)
{
	return filename ? intern_claim(kaddr(filename, struct filename, name), base_path_id, NULL, IN_KERNEL) : 0;
}

/* The folder that a path starts from; the request's descriptor is the folder's. */
static __always_inline u32 base_for(struct task_state *state, struct pending_request *request, s32 dirfd)
{
	if (dirfd != AT_FDCWD)
		request->fd = dirfd;
	return base_of(bpf_get_current_task_btf(), state, dirfd);
}

/* Paths of a request. Its names are freed when it has run: of a late one (is_late) they are not known. */
static __always_inline void describe_paths(struct task_state *state, struct pending_request *request, u64 req,
					   bool is_late)
{
	u64 path = 0, other = 0;
	s32 dirfd = AT_FDCWD, other_dirfd = AT_FDCWD;
	bool has_other = true;

	request->is_long = true;
	switch (request->kind) {
	case REQUEST_RENAME: {
		struct io_rename *rename = kcast(struct io_rename, req);

		dirfd = kread(rename, old_dfd);
		other_dirfd = kread(rename, new_dfd);
		request->flags = kread(rename, flags);
		path = kname(req, io_rename, oldpath);
		other = kname(req, io_rename, newpath);
		request->has = FLAK_HAS_FLAGS;
		break;
	}
	case REQUEST_LINK:
	case REQUEST_SYMLINK: {
		struct io_link *link = kcast(struct io_link, req);

		if (request->kind == REQUEST_LINK) {
			dirfd = kread(link, old_dfd);
			request->flags = kread(link, flags);
			request->has = FLAK_HAS_FLAGS;
		}
		other_dirfd = kread(link, new_dfd);
		path = kname(req, io_link, oldpath);
		other = kname(req, io_link, newpath);
		break;
	}
	case REQUEST_UNLINK: {
		struct io_unlink *unlink = kcast(struct io_unlink, req);

		dirfd = kread(unlink, dfd);
		request->flags = kread(unlink, flags);
		path = kname(req, io_unlink, filename);
		request->has = FLAK_HAS_FLAGS;
		has_other = false;
		break;
	}
	default: {
		struct io_mkdir *mkdir = kcast(struct io_mkdir, req);

		dirfd = kread(mkdir, dfd);
		request->mode = kread(mkdir, mode);
		path = kname(req, io_mkdir, filename);
		request->has = FLAK_HAS_MODE;
		has_other = false;
	}
	}
	if (is_late)
		return;
	/* The target of a symbolic link starts from the link, not from here. */
	request->path_id = claim_of(path, request->kind == REQUEST_SYMLINK ? 0 : base_for(state, request, dirfd));
	if (has_other)
		request->other_path_id = claim_of(other, base_of(bpf_get_current_task_btf(), state, other_dirfd));
}

static __always_inline void describe_open(struct task_state *state, struct pending_request *request, u64 req,
					  bool is_late)
{
	struct io_open *open = kcast(struct io_open, req);

	request->is_long = true;
	request->open_flags = kread(open, how.flags);
	request->mode = kread(open, how.mode);
	request->slot = kread(open, file_slot);
	request->has = FLAK_HAS_OPEN_FLAGS | (request->open_flags & 0100 /* O_CREAT */ ? FLAK_HAS_MODE : 0);
	if (!is_late)
		request->claim_id = claim_of(kname(req, io_open, filename), base_for(state, request, kread(open, dfd)));
}

static __always_inline void describe_splice(struct task_state *state, struct pending_request *request, u64 req)
{
	struct io_splice *splice = kcast(struct io_splice, req);
	struct copy_side *source = &request->source;
	struct file_ref ref = {};
	s32 fd = kread(splice, splice_fd_in);

	request->is_long = true;
	request->size_req = kread(splice, len);
	request->file_offset = kread(splice, off_out);
	source->file_offset = kread(splice, off_in);
	if (kread(splice, flags) & SPLICE_F_FD_IN_FIXED) {
		source->file = registered_file(kaddr(req, struct io_kiocb, ctx), fd);
		source->fd = -1;
	} else {
		source->file = file_of_fd(bpf_get_current_task_btf(), fd);
		source->fd = fd;
	}
	source->is_wanted = !source->file || !ref_of_file(state, source->file, &ref);
	if (!source->file)
		return;
	source->file_id = ref.file_id;
	source->path_id = ref.path_id;
	source->marks = ref.marks;
	if (source->file_offset == FLAK_NONE && ((ref.mode & S_IFMT) == S_IFREG || (ref.mode & S_IFMT) == S_IFBLK))
		source->file_offset = kread(kcast(struct file, source->file), f_pos);
}

/* A part of a memory map: its file and place. */
static __always_inline void describe_memory(struct task_state *state, struct pending_request *request, u64 req)
{
	struct io_madvise *advice = kcast(struct io_madvise, req);
	struct file_ref ref = {};
	u64 vma, file;

	request->addr = kread(advice, addr);
	request->size_req = kread(advice, len);
	request->flags = kread(advice, advice);
	request->has = FLAK_HAS_ADDR | FLAK_HAS_FLAGS;
	request->is_long = true;
	vma = find_mapping(current_mm(), request->addr);
	file = vma ? kaddr(vma, struct vm_area_struct, vm_file) : 0;
	if (!file || ref_of_mapped(state, file, &ref)) {
		request->is_unwanted = true;
		return;
	}
	request->file_id = ref.file_id;
	request->path_id = ref.path_id;
	request->marks |= ref.marks;
	request->file_offset = offset_in_mapping(vma, request->addr);
}

static __always_inline void describe_transfer(struct pending_request *request, u64 req, u32 opcode)
{
	struct io_rw *rw = kcast(struct io_rw, req);
	u32 len = kread(rw, len);

	request->file_offset = kread(rw, kiocb.ki_pos);
	request->uses_position = request->file_offset == FLAK_NONE;
	if (is_vector_opcode(opcode)) {
		if (!is_compat(bpf_get_current_task_btf())) /* theirs are half as large */
			request->size_req = vector_size(kread(rw, addr), len);
	} else if (len || !(kread(request_of(req), flags) & IOSQE_BUFFER_SELECT))
		request->size_req = len; /* else as much as the buffer that the kernel picks holds */
}

static __always_inline bool names_open_file(u32 kind)
{
	return kind >= REQUEST_TRANSFER && kind <= REQUEST_ADVICE;
}

/* What a request asks for, as it stands in the request itself, where it was submitted or where it completed (is_late). */
int describe_request(struct pending_request *request, u64 req, u32 is_late)
{
	struct task_state *state = state_of(bpf_get_current_task_btf());
	struct io_kiocb *kiocb = request_of(req);
	u32 opcode = kread(kiocb, opcode);
	u64 flags = kread(kiocb, flags);

	if (!request || !state)
		return 0;
	request->cookie = kread(kiocb, cqe.user_data);
	request->op = OP_OF_OPCODE(opcode);
	request->kind = kind_of(opcode);
	request->is_fixed = flags & IOSQE_FIXED_FILE;
	request->is_silent = flags & IOSQE_CQE_SKIP_SUCCESS;
	if (is_late == REQUEST_REFUSED)
		return 0;
	if (!is_late) { /* the result stands there afterwards */
		if (request->is_fixed)
			request->slot = kread(kiocb, cqe.fd);
		else
			request->fd = kread(kiocb, cqe.fd);
	}
	switch (request->kind) {
	case REQUEST_TRANSFER:
		describe_transfer(request, req, opcode);
		break;
	case REQUEST_SYNC:
	case REQUEST_ALLOCATE: {
		struct io_sync *sync = kcast(struct io_sync, req);
		u64 offset = kread(sync, off), size = kread(sync, len);

		request->flags = request->kind == REQUEST_SYNC ? kread(sync, flags) : kread(sync, mode);
		if (offset || size || opcode != 3) { /* fsync without a range means all */
			request->file_offset = offset;
			request->size_req = size;
		}
		request->has = FLAK_HAS_FLAGS;
		request->is_long = true;
		break;
	}
	case REQUEST_TRUNCATE:
		request->size_req = kread(kcast(struct io_sync___ftrunc, req), len);
		break;
	case REQUEST_ADVICE: {
		struct io_fadvise *advice = kcast(struct io_fadvise, req);

		request->file_offset = kread(advice, offset);
		request->size_req = kread(advice, len);
		request->flags = kread(advice, advice);
		request->has = FLAK_HAS_FLAGS;
		request->is_long = true;
		break;
	}
	case REQUEST_MEMORY_ADVICE:
		request->fd = -1;
		describe_memory(state, request, req);
		break;
	case REQUEST_OPEN:
		request->fd = -1;
		describe_open(state, request, req, is_late);
		break;
	case REQUEST_CLOSE: {
		struct io_close *close = kcast(struct io_close, req);
		u32 slot = kread(close, file_slot);

		request->fd = slot ? -1 : kread(close, fd);
		if (!is_late)
			take_file(state, request,
				  slot ? registered_file(kaddr(req, struct io_kiocb, ctx), slot - 1)
				       : file_of_fd(bpf_get_current_task_btf(), request->fd));
		break;
	}
	case REQUEST_STATX: {
		s32 dirfd = kread(kcast(struct io_statx, req), dfd);

		request->fd = -1;
		request->flags = kread(kcast(struct io_statx, req), flags);
		request->addr = kaddr(req, struct io_statx, buffer);
		request->has = FLAK_HAS_FLAGS;
		request->is_long = true;
		request->base_path_id = base_for(state, request, dirfd);
		break;
	}
	case REQUEST_SPLICE:
		describe_splice(state, request, req);
		break;
	default:
		request->fd = -1;
		describe_paths(state, request, req, is_late);
	}
	if (is_late)
		return 0;
	/* Of one that is linked behind an open there may be no file yet, and of one that is silent no other chance. */
	if (names_open_file(request->kind)) {
		request->file = request->is_fixed ? registered_file(kaddr(req, struct io_kiocb, ctx), request->slot)
						  : file_of_fd(bpf_get_current_task_btf(), request->fd);
		take_file(state, request, request->file);
		if (request->kind == REQUEST_TRANSFER && request->is_stream)
			request->file_offset = FLAK_NONE;
	} else if (request->kind == REQUEST_STATX && has_delayed_names && is_of_descriptor(request, req)) {
		request->file = file_of_fd(bpf_get_current_task_btf(), request->fd);
		take_file(state, request, request->file);
	} else if (request->kind == REQUEST_STATX && (request->is_silent || has_delayed_names)) {
		request->path_id = claim_of(kname(req, io_statx, filename), request->base_path_id);
	}
	return 0;
}

/* The file that the kernel looked up for a request, where that is not the one of its submission. −1: of no interest. */
int resolve_request(struct pending_request *request, u64 req)
{
	struct task_state *state = state_of(bpf_get_current_task_btf());
	u64 file;

	if (!request || !state || !names_open_file(request->kind))
		return 0;
	file = kaddr(req, struct io_kiocb, file);
	if (!file || file == request->file)
		return request->is_unwanted ? -1 : 0;
	if (take_file(state, request, file))
		return -1;
	if (request->kind == REQUEST_TRANSFER && request->is_stream)
		request->file_offset = FLAK_NONE;
	return 0;
}

/*
 * The offset of a transfer that was not told it when it was submitted. The kernel moves a request's own position on by
 * what was transferred, and nobody else does: what it says now less the result is exact.
 */
static __always_inline void settle_transfer(struct pending_request *request, u64 req, u32 opcode, s32 res)
{
	u64 file = kaddr(req, struct io_kiocb, file);
	u64 after = kread(kcast(struct io_rw, req), kiocb.ki_pos);
	u64 before = res > 0 && after >= (u64)res ? after - res : after;

	if (!file || request->is_stream || (request->file_offset == FLAK_NONE && !request->uses_position))
		return;
	if (is_write_opcode(opcode) && kread(kcast(struct io_rw, req), kiocb.ki_flags) & IOCB_APPEND) {
		request->marks |= FLAK_MARK_OFFSET_FROM_SIZE;
		if (!request->uses_position) {
			request->arg_offset = request->file_offset;
			request->has |= FLAK_HAS_ARG_OFFSET;
			request->is_long = true;
		}
		request->file_offset = res > 0 ? before : FLAK_NONE;
	} else if (request->uses_position || request->marks & FLAK_MARK_NO_ENTER) {
		request->file_offset = res >= 0 ? before : FLAK_NONE;
	}
}

/* The file that an open made: behind the new descriptor, or registered. −1: of no interest. */
static __always_inline int settle_open(struct task_state *state, struct pending_request *request, u64 req, s32 res)
{
	u64 file;

	if (res < 0)
		return 0;
	if (!request->slot) {
		request->new_fd = res;
		file = file_of_fd(bpf_get_current_task_btf(), res);
	} else {
		u32 slot = request->slot == IORING_FILE_INDEX_ALLOC ? (u32)res : request->slot - 1;

		file = registered_file(kaddr(req, struct io_kiocb, ctx), slot);
	}
	if (take_file(state, request, file))
		return -1;
	if (file)
		request->claim_id = 0;
	return 0;
}

/* What statx was asked about, and what it found. −1: of no interest. */
static __always_inline int settle_statx(struct task_state *state, struct pending_request *request, u64 req, s32 res)
{
	u64 filename = kname(req, io_statx, filename);
	struct stat_identity found = {};
	u64 ids;

	if (!filename && has_delayed_names)
		return request->is_unwanted ? -1 : 0; /* as it was named when it was submitted */
	if (is_of_descriptor(request, req))
		return take_file(state, request, file_of_fd(bpf_get_current_task_btf(), request->fd));
	if (!res)
		read_found(&found, request->addr, true);
	if (!is_wanted_find(&found))
		return -1;
	ids = intern_claim(filename ? kaddr(filename, struct filename, name) : 0, request->base_path_id, &found,
			   IN_KERNEL);
	request->path_id = (u32)ids;
	request->file_id = ids >> 32;
	return 0;
}

/* Both records of a splice: the slot holds one side after the other. */
static __always_inline void send_splice(struct task_state *state, struct pending_request *request, u64 req, s32 res,
					u64 now)
{
	u64 file = kaddr(req, struct io_kiocb, file);
	struct copy_side *source = &request->source;
	u64 file_offset = request->file_offset;
	u32 marks = request->marks;
	struct file_ref ref = {};
	s32 fd = request->fd;
	bool is_wanted;

	is_wanted = !file || !ref_of_file(state, file, &ref);
	request->call_id = __sync_fetch_and_add(&next_call_id, 1) + 1;
	if (source->is_wanted) {
		request->file_id = source->file_id;
		request->path_id = source->path_id;
		request->file_offset = source->file_offset;
		request->marks = marks | source->marks;
		request->fd = source->fd;
		send_request(request, res, now);
	}
	if (!is_wanted)
		return;
	if (file_offset == FLAK_NONE && file && ((ref.mode & S_IFMT) == S_IFREG || (ref.mode & S_IFMT) == S_IFBLK))
		file_offset = kread(kcast(struct file, file), f_pos) - (res > 0 ? res : 0);
	request->op = FLAK_OP_IO_URING_SPLICE_TO;
	request->file_id = ref.file_id;
	request->path_id = ref.path_id;
	request->file_offset = file_offset;
	request->marks = marks | ref.marks;
	request->fd = fd;
	send_request(request, res, now);
}

/* A request has its result: the rest is taken, and the record sent. */
int complete_request(struct pending_request *request, u64 req, s32 res)
{
	struct task_state *state = state_of(bpf_get_current_task_btf());
	u64 now = bpf_ktime_get_boot_ns();
	u32 opcode = kread(request_of(req), opcode);

	if (!request || !state)
		return 0;
	switch (request->kind) {
	case REQUEST_SPLICE:
		send_splice(state, request, req, res, now);
		return 0;
	case REQUEST_OPEN:
		if (settle_open(state, request, req, res))
			return 0;
		break;
	case REQUEST_STATX:
		if (settle_statx(state, request, req, res))
			return 0;
		break;
	default:
		if (resolve_request(request, req) || request->is_unwanted)
			return 0;
		if (request->kind == REQUEST_TRANSFER)
			settle_transfer(request, req, opcode, res);
	}
	send_request(request, res, now);
	return 0;
}

/*
 * What is known of a request that has not completed, for somebody who looks on. False: its memory holds another one by
 * now, or none: it has ended, and nobody told.
 */
static __always_inline bool locate_request(struct pending_request *request)
{
	u64 req = request->key;
	struct io_kiocb *kiocb = request_of(req);

	if (request->kind == REQUEST_STATX && !request->path_id)
		request->path_id = claim_of(kname(req, io_statx, filename), request->base_path_id);
	else if (!request->file)
		resolve_request(request, req);
	return request->cookie == kread(kiocb, cqe.user_data) && OP_OF_OPCODE(kread(kiocb, opcode)) == request->op;
}

/* Takes into an empty request who submits it and what it asks for. False: there is no memory to do so. */
static __always_inline bool begin_request(struct pending_request *request, u64 req, u32 marks, u32 is_late)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);

	if (!state)
		return false;
	request->task_id = task_id_of(task, state);
	request->process = state->process;
	request->start_ns = bpf_ktime_get_boot_ns();
	request->marks = marks;
	describe_request(request, req, is_late);
	request->owner = kaddr(req, struct io_kiocb, ctx);
	return true;
}

static __always_inline int submit_request(u64 kiocb)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state;
	struct pending_request *before, *request;
	u32 opcode, kind;
	u64 req;

	if (!is_target(task))
		return 0;
	opcode = kread(request_of(kiocb), opcode);
	kind = kind_of(opcode);
	if (kind == REQUEST_IGNORED)
		return 0;
	if (kind == REQUEST_UNKNOWN) {
		__sync_fetch_and_add(&undecoded_opcodes[opcode < FLAK_MAX_OPCODES ? opcode : FLAK_MAX_OPCODES - 1], 1);
		return 0;
	}
	state = state_of(task);
	if (!state)
		return 0; /* put together when it completes */
	/* By way of memory: the verifier has given the hook's argument a type, and global functions take plain numbers. */
	*(volatile u64 *)&state->kiocb = kiocb;
	req = *(volatile u64 *)&state->kiocb;
	before = request_at(find_request(req, kaddr(req, struct io_kiocb, ctx)));
	if (before) {
		end_unseen(before, bpf_ktime_get_boot_ns());
		drop_request(before);
	}
	request = request_at(take_request(req, kaddr(req, struct io_kiocb, ctx)));
	if (request && !begin_request(request, req, 0, REQUEST_SUBMITTED))
		drop_request(request);
	return 0;
}

SEC("?tp_btf/io_uring_submit_req")
int flak_submit_req(u64 *ctx)
{
	return submit_request(ctx[0]);
}

SEC("?tp_btf/io_uring_submit_sqe")
int flak_submit_sqe(u64 *ctx)
{
	return submit_request(ctx[0]);
}

/* May it be a request of a process that is traced? Most are not, and pass for the price of this. */
static __always_inline bool is_of_target_process(u64 task)
{
	u32 tgid = task ? kread(kcast(struct task_struct, task), tgid) : 0;

	return tgid && tgid != own_tgid && is_covered_process(tgid);
}

SEC("?tp_btf/io_uring_complete")
int flak_complete(u64 *ctx)
{
	u64 req = ctx[1];
	struct pending_request *request;
	u32 opcode, kind, flags;
	u64 submitter;
	s32 res;

	if (!req)
		return 0; /* a message of the ring's own */
	opcode = kread(request_of(req), opcode);
	kind = kind_of(opcode);
	if (kind <= REQUEST_IGNORED)
		return 0;
	if (has_cqe_argument) {
		struct io_uring_cqe *cqe = kcast(struct io_uring_cqe, ctx[2]);

		res = kread(cqe, res);
		flags = kread(cqe, flags);
	} else {
		res = ctx[3];
		flags = ctx[4];
	}
	if (kind == REQUEST_RENAME && !res) /* whoever it was: known paths are looked at again */
		__sync_fetch_and_add(&rename_gen, 1);
	submitter = submitter_of(req);
	if (!is_of_target_process(submitter))
		return 0;
	request = request_at(find_request(req, kaddr(req, struct io_kiocb, ctx)));
	if (request && !claim_request(request, req))
		return 0;
	if (request &&
	    (request->cookie != kread(request_of(req), cqe.user_data) || request->op != OP_OF_OPCODE(opcode))) {
		end_unseen(request, bpf_ktime_get_boot_ns()); /* the one before at this address */
		drop_request(request);
		request = NULL;
	}
	if (!request) {
		if (is_stopping ||
		    (judges_tasks && !judge_task(submitter))) /* else the verdict at its submission holds */
			return 0;
		request = other_request(LATE_REQUEST);
		if (!request)
			return 0;
		clear_request(request);
		if (!begin_request(request, req, FLAK_MARK_NO_ENTER, res < 0 ? REQUEST_REFUSED : REQUEST_LATE))
			return 0;
		if (res >= 0)
			complete_request(request, req, res);
		else if (!resolve_request(request, req))
			send_request(request, res, bpf_ktime_get_boot_ns());
		return 0;
	}
	complete_request(request, req, res);
	if (!(flags & IORING_CQE_F_MORE))
		drop_request(request);
	return 0;
}

/* Without a completion: of a ring that had no room for one, or behind a link that failed and was to be silent. */

SEC("?tp_btf/io_uring_cqe_overflow")
int flak_overflow(u64 *ctx)
{
	*overflow_of(ctx[0]) = bpf_ktime_get_boot_ns();
	return 0;
}

SEC("?tp_btf/io_uring_fail_link")
int flak_fail_link(u64 *ctx)
{
	struct pending_request *request, *late = other_request(LATE_REQUEST);
	u64 link;

	if (!late)
		return 0;
	*(volatile u64 *)&late->key = ctx[1]; /* a number when it is read again, as in submit_request() */
	link = *(volatile u64 *)&late->key;
	request = request_at(find_request(link, kaddr(link, struct io_kiocb, ctx)));
	if (request)
		request->is_silent = true;
	return 0;
}
