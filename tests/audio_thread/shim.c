/* Preloaded into a Python process: an audio thread that dies on whatever an audio thread must not do.
 *
 * `drive` runs an engine's callback on a thread of its own. While that thread runs, it is flagged: the functions
 * interposed below end the process when it calls them, so do breakpoints at the doors of the interpreter, and a
 * seccomp filter turns every system call of that thread into a signal. The calling Python thread waits inside
 * `drive` with the interpreter lock held.
 *
 * cc -shared -fPIC -O2 -o shim.so shim.c -ldl -lpthread -Wl,-z,now
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define DEATH 97
#define NO_SECCOMP 1

static __thread int on_audio_thread __attribute__((tls_model("initial-exec")));

static void die(const char *what)
{
    char text[160];
    size_t length = strnlen(what, 100);
    on_audio_thread = 0;
    memcpy(text, what, length);
    memcpy(text + length, " on the audio thread\n", 21);
    if (write(2, text, length + 21) < 0) { }
    _exit(DEATH);
}

/* --- the C library, interposed --- */

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

#define WATCH(name) if (__builtin_expect(on_audio_thread, 0)) die(#name)

void *malloc(size_t size) { WATCH(malloc); return __libc_malloc(size); }
void *calloc(size_t count, size_t size) { WATCH(calloc); return __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { WATCH(realloc); return __libc_realloc(old, size); }
void free(void *old) { WATCH(free); __libc_free(old); }
void *memalign(size_t alignment, size_t size) { WATCH(memalign); return __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { WATCH(aligned_alloc); return __libc_memalign(alignment, size); }

int posix_memalign(void **out, size_t alignment, size_t size)
{
    WATCH(posix_memalign);
    if (alignment % sizeof(void *) || (alignment & (alignment - 1)) || !alignment) return EINVAL;
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}

static void *next(const char *name)
{
    /* The condition variables have an incompatible older version on x86-64, which is what dlsym would give. */
    void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
    return found ? found : dlsym(RTLD_NEXT, name);
}

#define FORWARD(name, parameters, arguments)                             \
    int name parameters                                                  \
    {                                                                    \
        static int (*_Atomic real) parameters;                           \
        WATCH(name);                                                     \
        if (!real) real = (int(*) parameters)next(#name);                \
        return real arguments;                                           \
    }

FORWARD(pthread_mutex_lock, (pthread_mutex_t *m), (m))
FORWARD(pthread_cond_wait, (pthread_cond_t *c, pthread_mutex_t *m), (c, m))
FORWARD(pthread_cond_timedwait, (pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t), (c, m, t))
FORWARD(sem_wait, (sem_t *s), (s))
FORWARD(sem_timedwait, (sem_t *s, const struct timespec *t), (s, t))

/* --- the interpreter: its functions may live in the executable, where nothing can be interposed --- */

static const char *const doors[] = {
    "PyGILState_Ensure", "PyEval_RestoreThread", "PyEval_AcquireThread", "PyErr_SetString", "PyErr_WriteUnraisable",
    "PyObject_Malloc", "PyMem_Malloc", "PyObject_Call", "PyLong_FromLongLong",
};
#define DOORS (sizeof doors / sizeof *doors)
#if defined(__x86_64__)
static const unsigned char breakpoint[] = {0xCC};
#define TRAP_OFFSET 1 /* the program counter stands behind the instruction */
#define PROGRAM_COUNTER(context) ((uintptr_t)(context)->uc_mcontext.gregs[REG_RIP])
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
static const unsigned char breakpoint[] = {0x00, 0x00, 0x20, 0xD4};
#define TRAP_OFFSET 0
#define PROGRAM_COUNTER(context) ((uintptr_t)(context)->uc_mcontext.pc)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "only x86-64 and aarch64"
#endif
static unsigned char *at_door[DOORS];
static unsigned char covered[DOORS][sizeof breakpoint];

static void guard_doors(int on)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < DOORS; i++) {
        if (on) at_door[i] = dlsym(RTLD_DEFAULT, doors[i]);
        if (!at_door[i]) continue;
        uintptr_t start = (uintptr_t)at_door[i] & ~(page - 1);
        size_t span = ((uintptr_t)at_door[i] + sizeof breakpoint - start + page - 1) & ~(page - 1);
        if (mprotect((void *)start, span, PROT_READ | PROT_WRITE | PROT_EXEC)) {
            at_door[i] = NULL;
            continue;
        }
        if (on) memcpy(covered[i], at_door[i], sizeof breakpoint);
        memcpy(at_door[i], on ? breakpoint : covered[i], sizeof breakpoint);
        mprotect((void *)start, span, PROT_READ | PROT_EXEC);
        __builtin___clear_cache((char *)at_door[i], (char *)at_door[i] + sizeof breakpoint);
    }
}

static void on_breakpoint(int number, siginfo_t *info, void *context)
{
    uintptr_t at = PROGRAM_COUNTER((ucontext_t *)context) - TRAP_OFFSET;
    for (size_t i = 0; i < DOORS; i++)
        if (at == (uintptr_t)at_door[i]) die(doors[i]);
    die("a breakpoint");
}

/* --- system calls --- */

static void on_system_call(int number, siginfo_t *info, void *context)
{
    char text[40];
    on_audio_thread = 0;
    snprintf(text, sizeof text, "system call %d", info->si_syscall);
    die(text);
}

static int forbid_system_calls(void)
{
#define LET(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        LET(SYS_exit), LET(SYS_exit_group), LET(SYS_rt_sigreturn), LET(SYS_write),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

/* --- the thread --- */

typedef int (*callback_t)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);

struct drive {
    callback_t callback;
    int64_t engine;
    float *in, *out;
    int64_t in_width, out_width;
    const int64_t *sizes;
    int64_t count;
    int without_seccomp;
    atomic_int done;
};

static void *audio_thread(void *argument)
{
    struct drive *d = argument;
    d->without_seccomp = !forbid_system_calls();
    on_audio_thread = 1;
    int64_t frame = 0;
    for (int64_t i = 0; i < d->count; i++) {
        d->callback((int64_t)(intptr_t)(d->in + frame * d->in_width),
                    (int64_t)(intptr_t)(d->out + frame * d->out_width), d->sizes[i], 0, 0, d->engine);
        frame += d->sizes[i];
    }
    atomic_store(&d->done, 1);
    /* Not through the library's door: what that frees and unmaps is no audio thread's business. */
    syscall(SYS_exit, 0);
    return NULL;
}

/* Call `callback(in, out, size, 0, 0, engine)` for each of the sizes on a guarded thread; `in` and `out` are
 * interleaved and as long as all sizes together. To be called with the interpreter lock held and kept.
 * Returns 0, NO_SECCOMP where system calls could not be watched, or -1 where no thread could be made. */
int drive(void *callback, int64_t engine, float *in, float *out, int64_t in_width, int64_t out_width,
          const int64_t *sizes, int64_t count)
{
    struct drive d = {(callback_t)callback, engine, in, out, in_width, out_width, sizes, count, 0, 0};
    struct sigaction trap = {.sa_flags = SA_SIGINFO}, call = {.sa_flags = SA_SIGINFO}, old_trap, old_call;
    struct timespec nap = {0, 200000};
    pthread_t thread;
    trap.sa_sigaction = on_breakpoint;
    call.sa_sigaction = on_system_call;
    sigaction(SIGTRAP, &trap, &old_trap);
    sigaction(SIGSYS, &call, &old_call);
    guard_doors(1);
    int failed = pthread_create(&thread, NULL, audio_thread, &d);
    if (!failed) {
        while (!atomic_load(&d.done)) nanosleep(&nap, NULL);
        pthread_join(thread, NULL);
    }
    guard_doors(0);
    sigaction(SIGTRAP, &old_trap, NULL);
    sigaction(SIGSYS, &old_call, NULL);
    return failed ? -1 : d.without_seccomp ? NO_SECCOMP : 0;
}
