/* A CUDA driver for machines without one: device memory is host memory. For tests only, and stricter than the real one:
 * every call but those that look at devices wants a current context; an address must lie in memory that is allocated,
 * with room for the whole copy; copies are done when their stream is waited for, and not before; any call can be made to
 * fail, and one that frees does so all the same. What is handed out is counted, so that a test can see a leak. */
#include <stdlib.h>
#include <string.h>

typedef unsigned long long dptr;
typedef struct { char *at; size_t size; int kind; float ms; } block;
typedef struct { void *to; const void *from; size_t size; void *stream; } copy;
enum { DEVICE = 1, PINNED, STREAM, EVENT, MODULE };
enum { MOST = 4096, GPUS = 4, DEEP = 16 };
enum { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, DESTROYED = 709 };

static int gpus = 1, init_status = 0, driver = 12060, fail_in = 0, fail_status = 0, calls = 0, multiprocessors = 8;
static int retained[GPUS];
static size_t limit = (size_t)1 << 30;
static block blocks[MOST];
static copy copies[MOST];
static int pending = 0;
static float clock_ms = 0; /* of the GPU: what runs there moves it, see fake_tick */
static __thread int stack[DEEP];
static __thread int depth = 0;

static int live_blocks(void)
{
    int n = 0;
    for (int i = 0; i < MOST; i++) n += blocks[i].at != 0;
    return n;
}
static int failing(void)
{
    calls++;
    return fail_in > 0 && --fail_in == 0 ? fail_status : 0;
}
static int usable(void)
{
    if (depth == 0 || stack[depth - 1] == 0) return INVALID_CONTEXT;
    return retained[stack[depth - 1] - 100] > 0 ? 0 : DESTROYED;
}
static int take(void **p, size_t n, int kind)
{
    for (int i = 0; i < MOST; i++)
        if (blocks[i].at == 0) {
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
static int held(const void *p, size_t n, int kind)
{
    for (int i = 0; i < MOST; i++)
        if (blocks[i].at && blocks[i].kind == kind && (const char *)p >= blocks[i].at &&
            (const char *)p + n <= blocks[i].at + blocks[i].size)
            return 1;
    return 0;
}
static int drop(void *p, int kind)
{
    for (int i = 0; i < MOST; i++)
        if (blocks[i].at && blocks[i].at == p && blocks[i].kind == kind) {
            free(blocks[i].at);
            blocks[i].at = 0;
            return 0;
        }
    return kind == DEVICE || kind == PINNED ? INVALID_VALUE : INVALID_HANDLE;
}
static float *moment(const void *event)
{
    for (int i = 0; i < MOST; i++)
        if (blocks[i].at == event) return &blocks[i].ms;
    return 0;
}
static void flush(void *stream)
{
    int kept = 0;
    for (int i = 0; i < pending; i++) {
        if (stream && copies[i].stream != stream) copies[kept++] = copies[i];
        else memcpy(copies[i].to, copies[i].from, copies[i].size);
    }
    pending = kept;
}
#define START do { int s = failing(); if (s) return s; } while (0)
#define FREED(what) do { int told_ = failing(), done_ = usable(); if (done_) return done_; done_ = (what); return told_ ? told_ : done_; } while (0)
#define IN_CONTEXT do { START; int s = usable(); if (s) return s; } while (0)

/* The label kernel, compiled for the host: labels_host.cpp. A launch is done in its turn behind the copies before it. */
typedef void kernel(void **arguments, int batch);
extern kernel edgeseg_labels_f32_u8, edgeseg_labels_f32_u16, edgeseg_labels_f16_u8, edgeseg_labels_f16_u16;
static const struct { const char *name; kernel *run; } kernels[] = {
    {"edgeseg_labels_f32_u8", edgeseg_labels_f32_u8}, {"edgeseg_labels_f32_u16", edgeseg_labels_f32_u16},
    {"edgeseg_labels_f16_u8", edgeseg_labels_f16_u8}, {"edgeseg_labels_f16_u16", edgeseg_labels_f16_u16},
};

/* for the tests */
int fake_live(void) { return live_blocks(); }
int fake_retained(int d) { return retained[d]; }
int fake_current(void) { return depth ? stack[depth - 1] : 0; }
int fake_calls(void) { return calls; }
int fake_pending(void) { return pending; }
void fake_tick(float ms) { clock_ms += ms; }
void fake_setup(int count, size_t bytes) { gpus = count; limit = bytes; init_status = 0; fail_in = 0; driver = 12060; multiprocessors = 8; }
void fake_forget(void)
{
    for (int i = 0; i < MOST; i++) {
        free(blocks[i].at);
        blocks[i].at = 0;
    }
}
void fake_reset(void)
{
    fake_forget();
    memset(retained, 0, sizeof retained);
    pending = depth = calls = 0;
    fake_setup(1, (size_t)1 << 30);
}
void fake_init(int status) { init_status = status; }
void fake_driver(int version) { driver = version; }
void fake_multiprocessors(int count) { multiprocessors = count; }
void fake_fail(int nth, int status) { fail_in = nth; fail_status = status; }
void fake_flush(void *stream) { flush(stream); }
void fake_set_current(int context) { depth = context ? 1 : 0; stack[0] = context; }
int fake_holds(dptr p, size_t n) { return held((void *)(size_t)p, n, DEVICE); }
int fake_size(dptr p)
{
    for (int i = 0; i < MOST; i++)
        if (blocks[i].at == (char *)(size_t)p) return (int)blocks[i].size;
    return -1;
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
    *v = what == 75 ? 8 : what == 76 ? 7 : what == 18 ? 1 : what == 16 ? multiprocessors : -1;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **c, int d) { START; *c = (void *)(size_t)(d + 100); retained[d]++; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { START; if (!retained[d]) return INVALID_CONTEXT; retained[d]--; return 0; }
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
    int s = failing();
    if (!depth) return INVALID_CONTEXT;
    *c = (void *)(size_t)stack[--depth];
    return s;
}
int cuMemGetInfo_v2(size_t *f, size_t *t) { IN_CONTEXT; *f = limit; *t = limit; return 0; }
int cuMemAlloc_v2(dptr *p, size_t n)
{
    IN_CONTEXT;
    void *at = 0;
    if (n == 0) return INVALID_VALUE;
    if (n > limit) return OUT_OF_MEMORY;
    int s = take(&at, n, DEVICE);
    *p = (dptr)(size_t)at;
    return s;
}
int cuMemFree_v2(dptr p) { flush(0); FREED(drop((void *)(size_t)p, DEVICE)); }
int cuMemAllocHost_v2(void **p, size_t n) { IN_CONTEXT; return n ? take(p, n, PINNED) : INVALID_VALUE; }
int cuMemFreeHost(void *p) { flush(0); FREED(drop(p, PINNED)); }
static int later(void *to, const void *from, size_t n, void *stream)
{
    if (!held(stream, 1, STREAM)) return INVALID_HANDLE;
    if (pending == MOST) return OUT_OF_MEMORY;
    copies[pending++] = (copy){to, from, n, stream};
    return 0;
}
int cuMemcpyHtoDAsync_v2(dptr d, const void *s, size_t n, void *q)
{
    IN_CONTEXT;
    return held((void *)(size_t)d, n, DEVICE) ? later((void *)(size_t)d, s, n, q) : INVALID_VALUE;
}
int cuMemcpyDtoHAsync_v2(void *d, dptr s, size_t n, void *q)
{
    IN_CONTEXT;
    return held((void *)(size_t)s, n, DEVICE) ? later(d, (void *)(size_t)s, n, q) : INVALID_VALUE;
}
int cuStreamCreate(void **s, unsigned flags) { IN_CONTEXT; return flags == 1 ? take(s, 1, STREAM) : INVALID_VALUE; }
int cuStreamSynchronize(void *s) { IN_CONTEXT; if (!held(s, 1, STREAM)) return INVALID_HANDLE; flush(s); return 0; }
int cuStreamDestroy_v2(void *s) { flush(s); FREED(drop(s, STREAM)); }
int cuEventCreate(void **e, unsigned flags) { IN_CONTEXT; return flags == 0 ? take(e, 1, EVENT) : INVALID_VALUE; }
int cuEventRecord(void *e, void *s)
{
    IN_CONTEXT;
    if (!held(e, 1, EVENT) || !held(s, 1, STREAM)) return INVALID_HANDLE;
    *moment(e) = clock_ms;
    return 0;
}
int cuEventSynchronize(void *e) { IN_CONTEXT; return held(e, 1, EVENT) ? 0 : INVALID_HANDLE; }
int cuEventElapsedTime(float *ms, void *a, void *b)
{
    IN_CONTEXT;
    if (!held(a, 1, EVENT) || !held(b, 1, EVENT) || *moment(a) < 0 || *moment(b) < 0) return INVALID_HANDLE;
    *ms = *moment(b) - *moment(a);
    return 0;
}
int cuEventDestroy_v2(void *e) { FREED(drop(e, EVENT)); }
int cuModuleLoadData(void **m, const void *image)
{
    IN_CONTEXT;
    return strstr(image, ".target sm_") ? take(m, 1, MODULE) : 218; /* INVALID_PTX */
}
int cuModuleUnload(void *m) { FREED(drop(m, MODULE)); }
int cuModuleGetFunction(void **f, void *m, const char *name)
{
    IN_CONTEXT;
    if (!held(m, 1, MODULE)) return INVALID_HANDLE;
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
    if (!held(stream, 1, STREAM)) return INVALID_HANDLE;
    if (!f || shared || extra || !gx || !gy || !gz || bx * by * bz == 0 || bx * by * bz > 1024) return INVALID_VALUE;
    const int classes = *(int *)arguments[1], h = *(int *)arguments[2], w = *(int *)arguments[3];
    const int height = *(int *)arguments[7], width = *(int *)arguments[8];
    const char *name = *(const char **)f;
    const size_t logit = strstr(name, "f16") ? 2 : 4, label = strstr(name, "u16") ? 2 : 1;
    if (gx * bx < (unsigned)width || gy * by < (unsigned)height) return INVALID_VALUE;
    if (!held(*(void **)arguments[0], gz * logit * classes * h * w, DEVICE) ||
        !held(*(void **)arguments[5], (size_t)height * 12, DEVICE) || !held(*(void **)arguments[6], (size_t)width * 12, DEVICE) ||
        !held(*(void **)arguments[9], gz * label * height * width, DEVICE) || !held(*(void **)arguments[10], 4, DEVICE))
        return 700; /* ILLEGAL_ADDRESS */
    flush(stream);
    ((kernel *)((void **)f)[1])(arguments, (int)gz);
    return 0;
}
int cuGetErrorName(int status, const char **s)
{
    *s = status == INVALID_HANDLE ? "CUDA_ERROR_INVALID_HANDLE"
       : status == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT"
       : status == DESTROYED ? "CUDA_ERROR_CONTEXT_IS_DESTROYED"
       : status == 100 ? "CUDA_ERROR_NO_DEVICE"
       : status == 218 ? "CUDA_ERROR_INVALID_PTX"
       : status == 999 ? "CUDA_ERROR_UNKNOWN" : "CUDA_ERROR";
    return 0;
}
int cuGetErrorString(int status, const char **s)
{
    *s = status == INVALID_HANDLE ? "invalid resource handle" : status == INVALID_CONTEXT ? "invalid device context"
       : status == 100 ? "no CUDA-capable device is detected" : status == 999 ? "unknown error" : "an error of the fake";
    return 0;
}
