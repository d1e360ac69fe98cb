/* A CUDA driver for machines without one: device memory is host memory, work is done at once. For tests only.
 * What is handed out is counted, so that a test can see a leak. */
#include <stdlib.h>
#include <string.h>

typedef unsigned long long dptr;
static int live = 0, gpus = 1, current = 0;
static size_t limit = (size_t)1 << 30;

int fake_live(void) { return live; }
void fake_setup(int count, size_t bytes) { gpus = count; limit = bytes; }
int fake_current(void) { return current; }

int cuInit(unsigned flags) { return flags == 0 ? 0 : 1; }
int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
int cuDeviceGetCount(int *n) { *n = gpus; return 0; }
int cuDeviceGet(int *d, int ordinal) { *d = ordinal; return ordinal < gpus ? 0 : 101; }
int cuDeviceGetName(char *name, int size, int d) { strncpy(name, d ? "Fake B" : "Fake A", size); return 0; }
int cuDeviceTotalMem_v2(size_t *n, int d) { (void)d; *n = (size_t)8 << 30; return 0; }
int cuDeviceGetAttribute(int *v, int what, int d)
{
    (void)d;
    *v = what == 75 ? 8 : what == 76 ? 7 : what == 18 ? 1 : -1;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)(size_t)(d + 100); live++; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { (void)d; live--; return 0; }
int cuCtxSetCurrent(void *c) { current = (int)(size_t)c; return 0; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { *f = limit; *t = limit; return 0; }
int cuMemAlloc_v2(dptr *p, size_t n)
{
    if (n > limit) return 2;
    *p = (dptr)(size_t)malloc(n);
    live++;
    return 0;
}
int cuMemFree_v2(dptr p) { free((void *)(size_t)p); live--; return 0; }
int cuMemAllocHost_v2(void **p, size_t n) { *p = malloc(n); live++; return 0; }
int cuMemFreeHost(void *p) { free(p); live--; return 0; }
int cuMemcpyHtoDAsync_v2(dptr d, const void *s, size_t n, void *q) { (void)q; memcpy((void *)(size_t)d, s, n); return 0; }
int cuMemcpyDtoHAsync_v2(void *d, dptr s, size_t n, void *q) { (void)q; memcpy(d, (void *)(size_t)s, n); return 0; }
int cuStreamCreate(void **s, unsigned flags) { *s = malloc(1); live++; return flags == 1 ? 0 : 1; }
int cuStreamSynchronize(void *s) { return s ? 0 : 400; }
int cuStreamDestroy_v2(void *s) { free(s); live--; return 0; }
int cuEventCreate(void **e, unsigned flags) { *e = malloc(1); live++; return flags == 0 ? 0 : 1; }
int cuEventRecord(void *e, void *s) { return e && s ? 0 : 400; }
int cuEventSynchronize(void *e) { return e ? 0 : 400; }
int cuEventElapsedTime(float *ms, void *a, void *b) { *ms = 1.5f; return a && b ? 0 : 400; }
int cuEventDestroy_v2(void *e) { free(e); live--; return 0; }
int cuGetErrorName(int status, const char **s) { *s = status == 400 ? "CUDA_ERROR_INVALID_HANDLE" : "CUDA_ERROR"; return 0; }
int cuGetErrorString(int status, const char **s) { (void)status; *s = "invalid resource handle"; return 0; }
