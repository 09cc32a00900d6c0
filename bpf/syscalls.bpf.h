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
	[4] = FLAK_OP_NEWSTAT,
	[5] = FLAK_OP_NEWFSTAT,
	[6] = FLAK_OP_NEWLSTAT,
	[8] = FLAK_OP_LSEEK,
	[9] = FLAK_OP_MMAP,
	[11] = FLAK_OP_MUNMAP,
	[16] = FLAK_OP_FICLONE, /* ioctl */
	[17] = FLAK_OP_PREAD64,
	[18] = FLAK_OP_PWRITE64,
	[19] = FLAK_OP_READV,
	[20] = FLAK_OP_WRITEV,
	[21] = FLAK_OP_ACCESS,
	[25] = FLAK_OP_MREMAP,
	[26] = FLAK_OP_MSYNC,
	[28] = FLAK_OP_MADVISE,
	[32] = FLAK_OP_DUP,
	[33] = FLAK_OP_DUP2,
	[38] = FLAK_NR_COMPAT_RENAMES, /* rename */
	[40] = FLAK_OP_SENDFILE64,
	[59] = FLAK_NR_EXEC, /* execve */
	[72] = FLAK_OP_FCNTL,
	[74] = FLAK_OP_FSYNC,
	[75] = FLAK_OP_FDATASYNC,
	[76] = FLAK_OP_TRUNCATE,
	[77] = FLAK_OP_FTRUNCATE,
	[82] = FLAK_OP_RENAME,
	[83] = FLAK_OP_MKDIR,
	[84] = FLAK_OP_RMDIR,
	[85] = FLAK_OP_CREAT,
	[86] = FLAK_OP_LINK,
	[87] = FLAK_OP_UNLINK,
	[88] = FLAK_OP_SYMLINK,
	[137] = FLAK_OP_STATFS,
	[138] = FLAK_OP_FSTATFS,
	[155] = FLAK_NR_RENAMES, /* pivot_root */
	[165] = FLAK_NR_RENAMES, /* mount */
	[166] = FLAK_NR_RENAMES, /* umount2 */
	[187] = FLAK_OP_READAHEAD,
	[208] = FLAK_NR_AIO_EVENTS, /* io_getevents */
	[209] = FLAK_NR_AIO,	    /* io_submit */
	[217] = FLAK_OP_GETDENTS64,
	[221] = FLAK_OP_FADVISE64,
	[257] = FLAK_OP_OPENAT,
	[258] = FLAK_OP_MKDIRAT,
	[262] = FLAK_OP_NEWFSTATAT,
	[263] = FLAK_OP_UNLINKAT,
	[264] = FLAK_OP_RENAMEAT,
	[265] = FLAK_OP_LINKAT,
	[266] = FLAK_OP_SYMLINKAT,
	[269] = FLAK_OP_FACCESSAT,
	[275] = FLAK_OP_SPLICE,
	[277] = FLAK_OP_SYNC_FILE_RANGE,
	[285] = FLAK_OP_FALLOCATE,
	[292] = FLAK_OP_DUP3,
	[295] = FLAK_OP_PREADV,
	[296] = FLAK_OP_PWRITEV,
	[302] = FLAK_NR_COMPAT_RENAMES, /* renameat */
	[316] = FLAK_OP_RENAMEAT2,
	[322] = FLAK_NR_EXEC, /* execveat */
	[326] = FLAK_OP_COPY_FILE_RANGE,
	[327] = FLAK_OP_PREADV2,
	[328] = FLAK_OP_PWRITEV2,
	[332] = FLAK_OP_STATX,
	[333] = FLAK_NR_AIO_EVENTS,	/* io_pgetevents */
	[353] = FLAK_NR_COMPAT_RENAMES, /* renameat2 */
	[426] = FLAK_NR_IO_URING,	/* io_uring_enter */
	[429] = FLAK_NR_RENAMES,	/* move_mount */
	[436] = FLAK_OP_CLOSE_RANGE,
	[437] = FLAK_OP_OPENAT2,
	[439] = FLAK_OP_FACCESSAT2,
};
#elif defined(__TARGET_ARCH_arm64)
const volatile u8 op_of_nr[FLAK_MAX_SYSCALLS] = {
	[2] = FLAK_NR_AIO,	  /* io_submit */
	[4] = FLAK_NR_AIO_EVENTS, /* io_getevents */
	[23] = FLAK_OP_DUP,
	[24] = FLAK_OP_DUP3,
	[25] = FLAK_OP_FCNTL,
	[29] = FLAK_OP_FICLONE, /* ioctl */
	[34] = FLAK_OP_MKDIRAT,
	[35] = FLAK_OP_UNLINKAT,
	[36] = FLAK_OP_SYMLINKAT,
	[37] = FLAK_OP_LINKAT,
	[38] = FLAK_OP_RENAMEAT,
	[39] = FLAK_NR_RENAMES, /* umount2 */
	[40] = FLAK_NR_RENAMES, /* mount */
	[41] = FLAK_NR_RENAMES, /* pivot_root */
	[43] = FLAK_OP_STATFS,
	[44] = FLAK_OP_FSTATFS,
	[45] = FLAK_OP_TRUNCATE,
	[46] = FLAK_OP_FTRUNCATE,
	[47] = FLAK_OP_FALLOCATE,
	[48] = FLAK_OP_FACCESSAT,
	[56] = FLAK_OP_OPENAT,
	[57] = FLAK_OP_CLOSE,
	[61] = FLAK_OP_GETDENTS64,
	[62] = FLAK_OP_LSEEK,
	[63] = FLAK_OP_READ,
	[64] = FLAK_OP_WRITE,
	[65] = FLAK_OP_READV,
	[66] = FLAK_OP_WRITEV,
	[67] = FLAK_OP_PREAD64,
	[68] = FLAK_OP_PWRITE64,
	[69] = FLAK_OP_PREADV,
	[70] = FLAK_OP_PWRITEV,
	[71] = FLAK_OP_SENDFILE64,
	[76] = FLAK_OP_SPLICE,
	[79] = FLAK_OP_NEWFSTATAT,
	[80] = FLAK_OP_NEWFSTAT,
	[82] = FLAK_OP_FSYNC,
	[83] = FLAK_OP_FDATASYNC,
	[84] = FLAK_OP_SYNC_FILE_RANGE,
	[213] = FLAK_OP_READAHEAD,
	[215] = FLAK_OP_MUNMAP,
	[216] = FLAK_OP_MREMAP,
	[221] = FLAK_NR_EXEC, /* execve */
	[222] = FLAK_OP_MMAP,
	[223] = FLAK_OP_FADVISE64,
	[227] = FLAK_OP_MSYNC,
	[233] = FLAK_OP_MADVISE,
	[276] = FLAK_OP_RENAMEAT2,
	[281] = FLAK_NR_EXEC, /* execveat */
	[285] = FLAK_OP_COPY_FILE_RANGE,
	[286] = FLAK_OP_PREADV2,
	[287] = FLAK_OP_PWRITEV2,
	[291] = FLAK_OP_STATX,
	[292] = FLAK_NR_AIO_EVENTS, /* io_pgetevents */
	[426] = FLAK_NR_IO_URING,   /* io_uring_enter */
	[429] = FLAK_NR_RENAMES,    /* move_mount */
	[436] = FLAK_OP_CLOSE_RANGE,
	[437] = FLAK_OP_OPENAT2,
	[439] = FLAK_OP_FACCESSAT2,
};
#endif

#endif /* FLAK_SYSCALLS_BPF_H */
