/* A CUDA driver for machines without one: device memory is host memory. For tests only, and stricter than the real one:
 * every call but those that look at devices wants a current context; an address must lie in memory that is allocated,
 * with room for the whole copy; work is done when its stream is waited for, and not before; a stream that is captured
 * runs nothing, and what may not be called meanwhile ends the capture; any call can be made to fail, and one that frees
 * does so all the same. What is handed out is counted, so that a test can see a leak. The address of mapped host memory
 * on the GPU is another than on the host. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long dptr;
typedef void engine(int id);
typedef void kernel(void **arguments, int batch);
enum { DEVICE = 1, PINNED, MAPPED, STREAM, EVENT, MODULE, GRAPH, EXECUTABLE };
enum { COPY = 1, SET, LABELS, ENGINE, MARK };
enum { MOST = 4096, GPUS = 4, DEEP = 16, NODES = 64, ARGUMENTS = 11 };
enum { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, ILLEGAL_STATE = 401,
       ILLEGAL_ADDRESS = 700, DESTROYED = 709, UNSUPPORTED = 900, INVALIDATED = 901, WRONG_THREAD = 908 };
static const dptr ALIAS = 1ull << 60;

/* Something to do in a stream. */
typedef struct {
    int kind, count, id, batch;
    void *stream;
    dptr to, from;
    size_t size;
    unsigned value;
    engine *run;
    void *function;
    dptr arguments[ARGUMENTS];
} work;
typedef struct { int count; work nodes[NODES]; } graph;
typedef struct { char *at; size_t size; int kind; float ms; graph *capture; const void *owner; int broken; } block;

static int gpus = 1, init_status = 0, driver = 12060, fail_in = 0, fail_status = 0, calls = 0, multiprocessors = 8;
static int integrated = 1, can_map = 1, capturable = 1, flags_of[4];
static int retained[GPUS];
static size_t limit = (size_t)1 << 30;
static block blocks[MOST];
static work queue[MOST];
static int pending = 0, failed = 0; /* failed: what a wait will say */
static float clock_ms = 0;          /* of the GPU: what runs there moves it, see fake_tick */
static __thread int stack[DEEP];
static __thread int depth = 0;
static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static int lock(void) { pthread_mutex_lock(&mutex); return 0; }
static void unlock(int *held) { (void)held; pthread_mutex_unlock(&mutex); }
static int live_blocks(void)
{
    int n = 0;
    for (int i = 0; i < MOST; i++) n += blocks[i].at != 0;
    return n;
}
static const char *failed_in = "";
static int failing_in(const char *name)
{
    calls++;
    if (fail_in <= 0 || --fail_in) return 0;
    failed_in = name;
    return fail_status;
}
#define failing() failing_in(__func__)
static int usable(void)
{
    if (depth == 0 || stack[depth - 1] == 0) return INVALID_CONTEXT;
    return retained[stack[depth - 1] - 100] > 0 ? 0 : DESTROYED;
}
static int take(void **p, size_t n, int kind)
{
    for (int i = 0; i < MOST; i++)
        if (blocks[i].at == 0) {
            memset(&blocks[i], 0, sizeof blocks[i]);
            blocks[i].at = malloc(n ? n : 1);
            memset(blocks[i].at, 0xA5, n ? n : 1);
            blocks[i].size = n;
            blocks[i].kind = kind;
            blocks[i].ms = -1; /* of an event that was never recorded */
            *p = blocks[i].at;
            return 0;
        }
    return OUT_OF_MEMORY;
}
static block *found(const void *p, int kind)
{
    for (int i = 0; i < MOST; i++)
        if (blocks[i].at && blocks[i].at == p && blocks[i].kind == kind) return &blocks[i];
    return 0;
}
static int within(const void *p, size_t n, int kind)
{
    for (int i = 0; i < MOST; i++)
        if (blocks[i].at && blocks[i].kind == kind && (const char *)p >= blocks[i].at &&
            (const char *)p + n <= blocks[i].at + blocks[i].size)
            return 1;
    return 0;
}
static void *host(dptr p) { return (void *)(size_t)(p & ~ALIAS); }
/* Whether the GPU may use n bytes at p. */
static int reaches(dptr p, size_t n) { return within(host(p), n, p & ALIAS ? MAPPED : DEVICE); }
static size_t room(void)
{
    size_t used = 0;
    for (int i = 0; i < MOST; i++)
        if (blocks[i].at && blocks[i].kind == DEVICE) used += blocks[i].size;
    return used < limit ? limit - used : 0;
}
static int drop(void *p, int kind)
{
    block *b = found(p, kind);
    if (!b) return kind == DEVICE || kind == PINNED ? INVALID_VALUE : INVALID_HANDLE;
    free(b->capture);
    free(b->at);
    b->at = 0;
    return 0;
}

/* The label kernel, compiled for the host: labels_host.cpp. */
extern kernel edgeseg_labels_f32_u8, edgeseg_labels_f32_u16, edgeseg_labels_f16_u8, edgeseg_labels_f16_u16;
static const struct { const char *name; kernel *run; } kernels[] = {
    {"edgeseg_labels_f32_u8", edgeseg_labels_f32_u8}, {"edgeseg_labels_f32_u16", edgeseg_labels_f32_u16},
    {"edgeseg_labels_f16_u8", edgeseg_labels_f16_u8}, {"edgeseg_labels_f16_u16", edgeseg_labels_f16_u16},
};
static const int sizes_of_arguments[ARGUMENTS] = {8, 4, 4, 4, 4, 8, 8, 4, 4, 8, 8};

/* Whether the memory that a kernel would use is there. */
static int kernel_reaches(const work *w)
{
    const dptr *a = w->arguments;
    const char *name = *(const char **)w->function;
    const size_t logit = strstr(name, "f16") ? 2 : 4, label = strstr(name, "u16") ? 2 : 1, height = (int)a[7], width = (int)a[8];
    return reaches(a[0], w->batch * logit * (int)a[1] * (int)a[2] * (int)a[3]) && reaches(a[5], height * 12) &&
           reaches(a[6], width * 12) && reaches(a[9], w->batch * label * height * width) && reaches(a[10], 4);
}
static int reachable(const work *w)
{
    switch (w->kind) {
    case COPY: return (w->value == 1 ? reaches(w->to, w->size) : reaches(w->from, w->size));
    case SET: return reaches(w->to, w->size);
    case LABELS: return kernel_reaches(w);
    case MARK: return found((void *)(size_t)w->to, EVENT) != 0;
    default: return 1;
    }
}
static void perform(work *w)
{
    if (!reachable(w)) {
        failed = ILLEGAL_ADDRESS;
        return;
    }
    if (w->kind == COPY) memcpy(host(w->to), host(w->from), w->size);
    if (w->kind == SET)
        for (size_t i = 0; i < w->size / 4; i++) ((unsigned *)host(w->to))[i] = w->value;
    if (w->kind == MARK) found((void *)(size_t)w->to, EVENT)->ms = clock_ms;
    if (w->kind == ENGINE) w->run(w->id);
    if (w->kind == LABELS) {
        void *pointers[ARGUMENTS];
        for (int i = 0; i < ARGUMENTS; i++) {
            if (sizes_of_arguments[i] == 8) w->arguments[i] &= ~ALIAS;
            pointers[i] = &w->arguments[i];
        }
        ((kernel *)((void **)w->function)[1])(pointers, w->batch);
    }
}
/* Do what waits in a stream (0: in all), in order. */
static void flush(void *stream)
{
    for (int i = 0; i < pending;) {
        work next = queue[i];
        if (stream && next.stream != stream) {
            i++;
            continue;
        }
        memmove(queue + i, queue + i + 1, (--pending - i) * sizeof *queue);
        perform(&next);
    }
}
static int told(void)
{
    int said = failed;
    failed = 0;
    return said;
}
/* Put work into its stream, or into the graph that the stream is captured to. */
static int later(work w)
{
    block *stream = found(w.stream, STREAM);
    if (!stream) return INVALID_HANDLE;
    if (stream->broken) return INVALIDATED;
    if (stream->capture) {
        if (stream->capture->count == NODES) return OUT_OF_MEMORY;
        stream->capture->nodes[stream->capture->count++] = w;
        return 0;
    }
    if (pending == MOST) return OUT_OF_MEMORY;
    queue[pending++] = w;
    return 0;
}
/* What may not be called by a thread that captures: it ends the capture. */
static int unsafe(void)
{
    int capturing = 0;
    for (int i = 0; i < MOST; i++)
        if (blocks[i].at && blocks[i].kind == STREAM && blocks[i].capture && blocks[i].owner == &depth)
            capturing = blocks[i].broken = 1;
    return capturing ? UNSUPPORTED : 0;
}
#define LOCKED __attribute__((cleanup(unlock))) int locked_ = lock(); (void)locked_
#define START LOCKED; do { int s = failing(); if (s) return s; } while (0)
#define IN_CONTEXT START; do { int s = usable(); if (s) return s; } while (0)
#define UNCAPTURED IN_CONTEXT; do { int s = unsafe(); if (s) return s; } while (0)
#define FREED(what) LOCKED; do { int told_ = failing(), done_ = usable(); if (done_) return done_; done_ = (what); return told_ ? told_ : done_; } while (0)

/* for the tests */
int fake_live(void) { LOCKED; return live_blocks(); }
int fake_retained(int d) { return retained[d]; }
int fake_current(void) { return depth ? stack[depth - 1] : 0; }
int fake_calls(void) { return calls; }
int fake_pending(void) { return pending; }
const char *fake_failed_in(void) { return failed_in; }
int fake_flags(int d) { return flags_of[d]; }
void fake_tick(float ms) { clock_ms += ms; }
void fake_setup(int count, size_t bytes)
{
    gpus = count;
    limit = bytes;
    init_status = fail_in = failed = 0;
    driver = 12060;
    multiprocessors = 8;
    integrated = can_map = capturable = 1;
}
void fake_forget(void)
{
    LOCKED;
    for (int i = 0; i < MOST; i++)
        if (blocks[i].at) {
            free(blocks[i].capture);
            free(blocks[i].at);
            blocks[i].at = 0;
        }
    pending = 0;
}
void fake_reset(void)
{
    fake_forget();
    memset(retained, 0, sizeof retained);
    memset(flags_of, 0, sizeof flags_of);
    pending = depth = calls = 0;
    clock_ms = 0;
    fake_setup(1, (size_t)1 << 30);
}
void fake_init(int status) { init_status = status; }
void fake_driver(int version) { driver = version; }
void fake_multiprocessors(int count) { multiprocessors = count; }
void fake_integrated(int is, int maps) { integrated = is; can_map = maps; }
void fake_capturable(int is) { capturable = is; }
void fake_fail(int nth, int status) { fail_in = nth; fail_status = status; }
void fake_failed(int status) { failed = status; }
void fake_flush(void *stream) { LOCKED; flush(stream); }
void fake_set_current(int context) { depth = context ? 1 : 0; stack[0] = context; }
int fake_holds(dptr p, size_t n) { LOCKED; return reaches(p, n); }
int fake_size(dptr p)
{
    LOCKED;
    for (int i = 0; i < MOST; i++)
        if (blocks[i].at == (char *)host(p)) return (int)blocks[i].size;
    return -1;
}
dptr fake_host(dptr p) { return p & ~ALIAS; }
int fake_capturing(void *stream) { LOCKED; block *b = found(stream, STREAM); return b && b->capture; }
/* An engine's run, which `run` does when its turn comes. */
int fake_engine(void *stream, engine *run, int id)
{
    LOCKED;
    return later((work){.kind = ENGINE, .stream = stream, .run = run, .id = id});
}
/* What an engine does that cannot be captured: it waits for its stream. */
int fake_waits(void *stream)
{
    LOCKED;
    block *b = found(stream, STREAM);
    return b && b->capture ? unsafe() : 0;
}

int cuInit(unsigned flags) { START; return flags == 0 ? init_status : INVALID_VALUE; }
int cuDriverGetVersion(int *v) { START; *v = driver; return 0; }
int cuDeviceGetCount(int *n) { START; *n = gpus; return 0; }
int cuDeviceGet(int *d, int ordinal) { START; *d = ordinal; return ordinal < gpus ? 0 : INVALID_DEVICE; }
int cuDeviceGetName(char *name, int size, int d) { START; strncpy(name, d ? "Fake B" : "Fake A", size); return 0; }
int cuDeviceTotalMem_v2(size_t *n, int d) { START; (void)d; *n = (size_t)8 << 30; return 0; }
int cuDeviceGetAttribute(int *v, int what, int d)
{
    START;
    (void)d;
    *v = what == 75 ? 8 : what == 76 ? 7 : what == 18 ? integrated : what == 19 ? can_map : what == 16 ? multiprocessors : -1;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **c, int d) { START; *c = (void *)(size_t)(d + 100); retained[d]++; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { START; if (!retained[d]) return INVALID_CONTEXT; retained[d]--; return 0; }
int cuDevicePrimaryCtxSetFlags_v2(int d, unsigned flags)
{
    START;
    if (d >= gpus) return INVALID_DEVICE;
    if (flags != 0 && flags != 1 && flags != 2 && flags != 4) return INVALID_VALUE;
    flags_of[d] = flags;
    return 0;
}
int cuCtxSetCurrent(void *c) { START; depth = c ? 1 : 0; stack[0] = (int)(size_t)c; return 0; }
int cuCtxPushCurrent_v2(void *c)
{
    START;
    if (!c || !retained[(int)(size_t)c - 100] || depth == DEEP) return INVALID_CONTEXT;
    stack[depth++] = (int)(size_t)c;
    return 0;
}
int cuCtxPopCurrent_v2(void **c)
{
    LOCKED;
    int s = failing();
    if (!depth) return INVALID_CONTEXT;
    *c = (void *)(size_t)stack[--depth];
    return s;
}
int cuMemGetInfo_v2(size_t *f, size_t *t) { IN_CONTEXT; *f = room(); *t = limit; return 0; }
int cuMemAlloc_v2(dptr *p, size_t n)
{
    UNCAPTURED;
    void *at = 0;
    if (n == 0) return INVALID_VALUE;
    if (n > room()) return OUT_OF_MEMORY;
    int s = take(&at, n, DEVICE);
    *p = (dptr)(size_t)at;
    return s;
}
static int release(void *p, int kind)
{
    int s = unsafe();
    flush(0);
    return s ? s : drop(p, kind);
}
int cuMemFree_v2(dptr p) { FREED(p & ALIAS ? INVALID_VALUE : release((void *)(size_t)p, DEVICE)); }
int cuMemHostAlloc(void **p, size_t n, unsigned flags)
{
    UNCAPTURED;
    if (n == 0 || flags & ~2u || (flags && !can_map)) return INVALID_VALUE;
    if (n > limit) return OUT_OF_MEMORY;
    return take(p, n, flags ? MAPPED : PINNED);
}
int cuMemHostGetDevicePointer_v2(dptr *d, void *p, unsigned flags)
{
    IN_CONTEXT;
    if (flags || !found(p, MAPPED)) return INVALID_VALUE;
    *d = (dptr)(size_t)p | ALIAS;
    return 0;
}
int cuMemFreeHost(void *p) { FREED(release(p, found(p, MAPPED) ? MAPPED : PINNED)); }
int cuMemcpyHtoDAsync_v2(dptr d, const void *s, size_t n, void *q)
{
    IN_CONTEXT;
    if (!reaches(d, n)) return INVALID_VALUE;
    return later((work){.kind = COPY, .stream = q, .to = d, .from = (dptr)(size_t)s, .size = n, .value = 1});
}
int cuMemcpyDtoHAsync_v2(void *d, dptr s, size_t n, void *q)
{
    IN_CONTEXT;
    if (!reaches(s, n)) return INVALID_VALUE;
    return later((work){.kind = COPY, .stream = q, .to = (dptr)(size_t)d, .from = s, .size = n});
}
int cuMemsetD32Async(dptr d, unsigned value, size_t n, void *q)
{
    IN_CONTEXT;
    if (d % 4 || !reaches(d, 4 * n)) return INVALID_VALUE;
    return later((work){.kind = SET, .stream = q, .to = d, .size = 4 * n, .value = value});
}
int cuStreamCreate(void **s, unsigned flags) { IN_CONTEXT; return flags == 1 ? take(s, 1, STREAM) : INVALID_VALUE; }
int cuStreamSynchronize(void *s)
{
    IN_CONTEXT;
    if (!found(s, STREAM)) return INVALID_HANDLE;
    if (found(s, STREAM)->capture) return unsafe() ? UNSUPPORTED : INVALIDATED;
    flush(s);
    return told();
}
int cuStreamDestroy_v2(void *s) { FREED((flush(s), drop(s, STREAM))); }
int cuStreamBeginCapture_v2(void *s, int mode)
{
    IN_CONTEXT;
    block *stream = found(s, STREAM);
    if (!stream) return INVALID_HANDLE;
    if (mode != 1 || stream->capture) return INVALID_VALUE; /* the tests' code captures in one mode alone */
    if (!capturable) return UNSUPPORTED;
    stream->capture = calloc(1, sizeof *stream->capture);
    stream->owner = &depth;
    stream->broken = 0;
    return 0;
}
int cuStreamEndCapture(void *s, void **g)
{
    LOCKED;
    int said = failing(), outside = usable();
    block *stream = found(s, STREAM);
    *g = 0;
    if (outside) return outside;
    if (!stream) return INVALID_HANDLE;
    if (!stream->capture) return ILLEGAL_STATE;
    if (stream->owner != &depth) return WRONG_THREAD;
    if (!said && stream->broken) said = INVALIDATED;
    if (!said && !(said = take(g, sizeof(graph), GRAPH))) memcpy(*g, stream->capture, sizeof(graph));
    free(stream->capture);
    stream->capture = 0;
    stream->broken = 0;
    return said;
}
int cuGraphInstantiateWithFlags(void **e, void *g, unsigned long long flags)
{
    IN_CONTEXT;
    if (!found(g, GRAPH)) return INVALID_HANDLE;
    if (flags || !((graph *)g)->count) return INVALID_VALUE;
    int s = take(e, sizeof(graph), EXECUTABLE);
    if (!s) memcpy(*e, g, sizeof(graph));
    return s;
}
int cuGraphLaunch(void *e, void *s)
{
    IN_CONTEXT;
    if (!found(e, EXECUTABLE)) return INVALID_HANDLE;
    for (int i = 0, said; i < ((graph *)e)->count; i++) {
        work node = ((graph *)e)->nodes[i];
        node.stream = s;
        if ((said = later(node))) return said;
    }
    return 0;
}
int cuGraphExecDestroy(void *e) { FREED(drop(e, EXECUTABLE)); }
int cuGraphDestroy(void *g) { FREED(drop(g, GRAPH)); }
int cuEventCreate(void **e, unsigned flags) { IN_CONTEXT; return flags == 0 ? take(e, 1, EVENT) : INVALID_VALUE; }
int cuEventRecord(void *e, void *s)
{
    IN_CONTEXT;
    if (!found(e, EVENT)) return INVALID_HANDLE;
    return later((work){.kind = MARK, .stream = s, .to = (dptr)(size_t)e});
}
int cuEventSynchronize(void *e)
{
    IN_CONTEXT;
    if (!found(e, EVENT)) return INVALID_HANDLE;
    flush(0);
    return told();
}
int cuEventElapsedTime(float *ms, void *a, void *b)
{
    IN_CONTEXT;
    if (!found(a, EVENT) || !found(b, EVENT)) return INVALID_HANDLE;
    if (found(a, EVENT)->ms < 0 || found(b, EVENT)->ms < 0) return INVALID_HANDLE;
    *ms = found(b, EVENT)->ms - found(a, EVENT)->ms;
    return 0;
}
int cuEventDestroy_v2(void *e) { FREED(drop(e, EVENT)); }
int cuModuleLoadData(void **m, const void *image)
{
    UNCAPTURED;
    return strstr(image, ".target sm_") ? take(m, 1, MODULE) : 218; /* INVALID_PTX */
}
int cuModuleUnload(void *m) { FREED(drop(m, MODULE)); }
int cuModuleGetFunction(void **f, void *m, const char *name)
{
    UNCAPTURED; /* it may load the code */
    if (!found(m, MODULE)) return INVALID_HANDLE;
    for (unsigned i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (!strcmp(kernels[i].name, name)) {
            *f = (void *)&kernels[i];
            return 0;
        }
    return 500; /* NOT_FOUND */
}
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *stream, void **arguments, void **extra)
{
    IN_CONTEXT;
    if (!f || shared || extra || !gx || !gy || !gz || bx * by * bz == 0 || bx * by * bz > 1024) return INVALID_VALUE;
    if (gx * bx < *(unsigned *)arguments[8] || gy * by < *(unsigned *)arguments[7]) return INVALID_VALUE;
    work w = {.kind = LABELS, .stream = stream, .function = f, .batch = (int)gz};
    for (int i = 0; i < ARGUMENTS; i++) memcpy(&w.arguments[i], arguments[i], sizes_of_arguments[i]);
    return kernel_reaches(&w) ? later(w) : ILLEGAL_ADDRESS;
}
static const struct { int status; const char *name, *words; } errors[] = {
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};
int cuGetErrorName(int status, const char **s)
{
    *s = "CUDA_ERROR";
    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].status == status) *s = errors[i].name;
    return 0;
}
int cuGetErrorString(int status, const char **s)
{
    *s = "an error of the fake";
    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].status == status) *s = errors[i].words;
    return 0;
}
