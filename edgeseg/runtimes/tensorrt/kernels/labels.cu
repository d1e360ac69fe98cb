/* Logits of a network to labels of any size, on the GPU. One thread a pixel; blockIdx.z is the picture of the batch. */
#define EDGESEG_FUNCTION static __device__ __forceinline__

EDGESEG_FUNCTION float edgeseg_float(float value) { return value; }
EDGESEG_FUNCTION float edgeseg_float(unsigned short half)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

#include "labels.h"

/* rows: `height` places, columns: `width` places. labels is (N, height, width). *broken becomes 1 for NaN or infinity. */
#define EDGESEG_KERNEL(name, Logit, Label)                                                                              \
    extern "C" __global__ void name(const Logit *logits, int classes, int h, int w, float threshold,                   \
                                    const EdgesegPlace *rows, const EdgesegPlace *columns, int height, int width,       \
                                    Label *labels, int *broken)                                                         \
    {                                                                                                                   \
        const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;                 \
        if (x >= width || y >= height) return;                                                                          \
        const long long picture = blockIdx.z;                                                                           \
        EdgesegField<Logit> field = {logits + picture * classes * h * w, classes, h, w, threshold};                     \
        labels[(picture * height + y) * width + x] = (Label)edgeseg_label(field, rows[y], columns[x], broken);          \
    }

EDGESEG_KERNEL(edgeseg_labels_f32_u8, float, unsigned char)
EDGESEG_KERNEL(edgeseg_labels_f32_u16, float, unsigned short)
EDGESEG_KERNEL(edgeseg_labels_f16_u8, unsigned short, unsigned char)
EDGESEG_KERNEL(edgeseg_labels_f16_u16, unsigned short, unsigned short)
