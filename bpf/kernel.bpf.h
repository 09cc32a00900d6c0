/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Kernel differences: how memory is read, how registers and system calls are numbered. Everything that depends on the
 * kernel or the architecture stands here; the newest kernel is the straight path.
 */
#ifndef FLAK_KERNEL_BPF_H
#define FLAK_KERNEL_BPF_H

#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "flak.h"

#define __hidden __attribute__((visibility("hidden")))

/*
 * Reading kernel memory. bpf_rdonly_cast(), 6.2 on ("bpf: Add kfunc bpf_rdonly_cast", a35b9af4ec2c), gives a number
 * the type of a kernel struct, after which loads are plain and cannot fault: 27 ns for a descriptor's file against
 * 253 ns by probe reads. Older kernels read the same fields through bpf_probe_read_kernel(): there is an object of each
 * kind, and user space asks BTF which to load.
 */
#ifdef FLAK_PROBE_READS
#define has_rdonly_cast false
#else
#define has_rdonly_cast true
#endif
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

/* A pointer to `type` at the address `addr`, ready for kread(). */
#define kcast(type, addr)                                                                                              \
	({                                                                                                             \
		type *__typed = (void *)(addr);                                                                        \
		if (has_rdonly_cast)                                                                                   \
			__typed = bpf_rdonly_cast((void *)(addr), bpf_core_type_id_kernel(type));                      \
		__typed;                                                                                               \
	})

/* One field, no pointer, of a struct that kcast() gave; zero when it cannot be read. */
#define kread(ptr, field)                                                                                              \
	({                                                                                                             \
		typeof(ptr) __from = (ptr);                                                                            \
		typeof(__from->field) __value = 0;                                                                     \
		if (has_rdonly_cast)                                                                                   \
			__value = __from->field;                                                                       \
		else                                                                                                   \
			bpf_core_read(&__value, sizeof(__value), &__from->field);                                      \
		__value;                                                                                               \
	})

/* Eight bytes at an address computed by us; zero when they cannot be read. */
static __always_inline u64 load_u64(u64 addr)
{
	if (has_rdonly_cast) {
		struct timespec64 *word = bpf_rdonly_cast((void *)addr, bpf_core_type_id_kernel(struct timespec64));

		return word->tv_sec;
	}
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)addr);
	return value;
}

/*
 * A pointer in the struct at an address, as a number: it can be kept, compared and hashed, which the verifier allows with
 * no typed pointer. Also where it would allow a typed one: for each pointer loaded from a trusted one Linux 6.18 searches
 * all of its BTF by name, four times (btf_nested_type_is_trusted), which made up a third of the time to load.
 */
#define kaddr(addr, type, field) load_u64((u64)(addr) + bpf_core_field_offset(type, field))

#include "old_kernel.bpf.h"

/*
 * Registers of a system call. At exit the first argument is found where the kernel keeps it for restarts: x86 leaves
 * di alone, arm64 saves x0 in orig_x0.
 */
#if defined(__TARGET_ARCH_x86)
#define syscall_nr(regs) ((long)reg(regs, orig_ax))
#define ARG1(regs) reg(regs, di)
#define ARG2(regs) reg(regs, si)
#define ARG3(regs) reg(regs, dx)
#define ARG4(regs) reg(regs, r10)
#define ARG5(regs) reg(regs, r8)
#define ARG6(regs) reg(regs, r9)
#define is_user_mode(regs) (((regs)->cs & 3) == 3)
#define STAT_MODE_WORD 3 /* st_mode of struct stat, in words of eight bytes */
#elif defined(__TARGET_ARCH_arm64)
#define syscall_nr(regs) ((long)(s32)reg(regs, syscallno))
#define ARG1(regs) reg(regs, orig_x0)
#define ARG2(regs) reg(regs, regs[1])
#define ARG3(regs) reg(regs, regs[2])
#define ARG4(regs) reg(regs, regs[3])
#define ARG5(regs) reg(regs, regs[4])
#define ARG6(regs) reg(regs, regs[5])
#define is_user_mode(regs) (((regs)->pstate & 0xf) == 0)
#define STAT_MODE_WORD 2
#endif

/* The task is inside a 32-bit system call, whose numbers are others. */
static __always_inline bool is_compat(const struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
	return tread(task, thread_info.status) & 2; /* TS_COMPAT */
#else
	return tread(task, thread_info.flags) & 1UL << 22; /* TIF_32BIT */
#endif
}

/* Values the kernel's headers define by macro, hence not in BTF. */
#define AT_FDCWD -100
#define AT_EMPTY_PATH 0x1000
#define S_IFMT 0170000
#define S_IFDIR 0040000
#define S_IFREG 0100000
#define S_IFBLK 0060000
#define S_IFLNK 0120000
#define O_APPEND 02000
#define RWF_APPEND 0x10
#define IOCB_APPEND RWF_APPEND /* include/linux/fs.h: the same bit; RWF_NOAPPEND takes it away */
#define RWF_NOAPPEND 0x20
#define MAP_ANONYMOUS 0x20
#define F_DUPFD 0
#define F_DUPFD_CLOEXEC 1030
#define FMODE_BACKING_HINT (3U << 24) /* bit 25 until 6.13, 24 since; not in BTF, so only a hint */
#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define FUSE_SUPER_MAGIC 0x65735546
#define BTRFS_SUPER_MAGIC 0x9123683e
#define MAX_ERRNO 4095
#define ENOSYS 38
#define PF_EXITING 0x4
#define UIO_MAXIOV 1024
#define VM_FAULT_ERROR 0x000873 /* OOM, SIGBUS, HWPOISON, HWPOISON_LARGE, SIGSEGV, FALLBACK */
#define VM_FAULT_MAJOR 0x000004
#define VM_FAULT_RETRY 0x000400
#define FAULT_FLAG_WRITE 0x01
#define FAULT_FLAG_TRIED 0x20
#define FAULT_FLAG_USER 0x40

#define is_error(ret) ((ret) < 0 && (ret) >= -MAX_ERRNO)
/* ERESTARTSYS … ERESTART_RESTARTBLOCK: never seen by the program as such. */
#define is_restart(ret) ((ret) <= -512 && (ret) >= -516)

#endif /* FLAK_KERNEL_BPF_H */
