// The postprocessing for edgeseg's Python, with a C interface (edgeseg/postprocess/compiled.py calls it by ctypes).
//
// Each function returns 0, or 1 after writing a sentence of at most 255 bytes to `said`.
#include <cstring>
#include <new>

#include "edgeseg/postprocess.hpp"

#if defined(_WIN32)
#define EDGESEG_EXPORT extern "C" __declspec(dllexport)
#else
#define EDGESEG_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace {

// shape: classes, height, width; size: height, width; region: net height and width, top, left, height, width, or null.
template <typename Label>
int labels(const float *logits, const int *shape, const int *size, int align_corners, float threshold, const double *region, Label *out, char *said)
{
    edgeseg::Region cut;
    if (region != nullptr)
        cut = {{static_cast<int>(region[0]), static_cast<int>(region[1])}, region[2], region[3], region[4], region[5]};
    try {
        edgeseg::labels_from_logits(edgeseg::Logits{logits, shape[0], shape[1], shape[2]}, edgeseg::Size{size[0], size[1]},
                                    edgeseg::Postprocess{align_corners != 0, threshold}, out, region != nullptr ? &cut : nullptr);
    } catch (const std::invalid_argument &error) {
        std::strncpy(said, error.what(), 255);
        return 1;
    } catch (const std::bad_alloc &) {
        std::strncpy(said, "there is not enough memory for the labels", 255);
        return 1;
    }
    return 0;
}

}  // namespace

EDGESEG_EXPORT int edgeseg_labels_u8(const float *logits, const int *shape, const int *size, int align_corners, float threshold,
                                     const double *region, std::uint8_t *out, char *said)
{
    return labels(logits, shape, size, align_corners, threshold, region, out, said);
}

EDGESEG_EXPORT int edgeseg_labels_u16(const float *logits, const int *shape, const int *size, int align_corners, float threshold,
                                      const double *region, std::uint16_t *out, char *said)
{
    return labels(logits, shape, size, align_corners, threshold, region, out, said);
}

// The sources that this was compiled from, so that a library of older ones is told.
EDGESEG_EXPORT const char *edgeseg_sources()
{
    return EDGESEG_SOURCES;
}
