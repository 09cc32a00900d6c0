/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * System call numbers → operations. Numbers are ABI: x86-64 has its own table (arch/x86/entry/syscalls/syscall_64.tbl),
 * arm64 the generic one (include/uapi/asm-generic/unistd.h). User space clears the entries of calls nobody asked for.
 */
#ifndef FLAK_SYSCALLS_BPF_H
#define FLAK_SYSCALLS_BPF_H

#include "core.bpf.h"

#if defined(__TARGET_ARCH_x86)
const volatile u8 op_of_nr[FLAK_MAX_SYSCALLS] = {
	[0] = FLAK_OP_READ,
	[1] = FLAK_OP_WRITE,
	[2] = FLAK_OP_OPEN,
	[3] = FLAK_OP_CLOSE,
	[8] = FLAK_OP_LSEEK,
	[9] = FLAK_OP_MMAP,
	[11] = FLAK_OP_MUNMAP,
	[17] = FLAK_OP_PREAD64,
	[18] = FLAK_OP_PWRITE64,
	[19] = FLAK_OP_READV,
	[20] = FLAK_OP_WRITEV,
	[25] = FLAK_OP_MREMAP,
	[32] = FLAK_OP_DUP,
	[38] = NR_COMPAT_RENAMES, /* rename */
	[33] = FLAK_OP_DUP2,
	[40] = NR_COPY, /* sendfile64 */
	[59] = NR_EXEC, /* execve */
	[72] = FLAK_OP_FCNTL,
	[82] = NR_RENAMES, /* rename */
	[85] = FLAK_OP_CREAT,
	[155] = NR_RENAMES, /* pivot_root */
	[165] = NR_RENAMES, /* mount */
	[166] = NR_RENAMES, /* umount2 */
	[209] = NR_AIO,	    /* io_submit */
	[257] = FLAK_OP_OPENAT,
	[264] = NR_RENAMES, /* renameat */
	[275] = NR_COPY,    /* splice */
	[292] = FLAK_OP_DUP3,
	[302] = NR_COMPAT_RENAMES, /* renameat */
	[353] = NR_COMPAT_RENAMES, /* renameat2 */
	[295] = FLAK_OP_PREADV,
	[296] = FLAK_OP_PWRITEV,
	[316] = NR_RENAMES, /* renameat2 */
	[322] = NR_EXEC,    /* execveat */
	[326] = NR_COPY,    /* copy_file_range */
	[327] = FLAK_OP_PREADV2,
	[328] = FLAK_OP_PWRITEV2,
	[426] = NR_IO_URING, /* io_uring_enter */
	[429] = NR_RENAMES,  /* move_mount */
	[437] = FLAK_OP_OPENAT2,
};
#elif defined(__TARGET_ARCH_arm64)
const volatile u8 op_of_nr[FLAK_MAX_SYSCALLS] = {
	[2] = NR_AIO, /* io_submit */
	[23] = FLAK_OP_DUP,
	[24] = FLAK_OP_DUP3,
	[25] = FLAK_OP_FCNTL,
	[38] = NR_RENAMES, /* renameat */
	[39] = NR_RENAMES, /* umount2 */
	[40] = NR_RENAMES, /* mount */
	[41] = NR_RENAMES, /* pivot_root */
	[56] = FLAK_OP_OPENAT,
	[57] = FLAK_OP_CLOSE,
	[62] = FLAK_OP_LSEEK,
	[63] = FLAK_OP_READ,
	[64] = FLAK_OP_WRITE,
	[65] = FLAK_OP_READV,
	[66] = FLAK_OP_WRITEV,
	[67] = FLAK_OP_PREAD64,
	[68] = FLAK_OP_PWRITE64,
	[69] = FLAK_OP_PREADV,
	[70] = FLAK_OP_PWRITEV,
	[71] = NR_COPY, /* sendfile */
	[76] = NR_COPY, /* splice */
	[215] = FLAK_OP_MUNMAP,
	[216] = FLAK_OP_MREMAP,
	[221] = NR_EXEC, /* execve */
	[222] = FLAK_OP_MMAP,
	[276] = NR_RENAMES, /* renameat2 */
	[281] = NR_EXEC,    /* execveat */
	[285] = NR_COPY,    /* copy_file_range */
	[286] = FLAK_OP_PREADV2,
	[287] = FLAK_OP_PWRITEV2,
	[426] = NR_IO_URING, /* io_uring_enter */
	[429] = NR_RENAMES,  /* move_mount */
	[437] = FLAK_OP_OPENAT2,
};
#endif

#endif /* FLAK_SYSCALLS_BPF_H */
