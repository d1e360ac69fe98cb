// The header's resizing with a C interface, for ctypes.
#include <cstring>

#include "edgeseg/fit.hpp"

extern "C" int fit(const std::uint8_t *pixels, const int *shape, const int *size, const char *mode, const char *filter, int pad,
                   std::uint8_t *out, double *region, char *said)
{
    const edgeseg::Picture picture{{shape[0], shape[1]}, shape[2], {pixels, pixels + static_cast<std::size_t>(shape[0]) * shape[1] * shape[2]}};
    try {
        const edgeseg::Fitted fitted = edgeseg::fit_picture(picture, {size[0], size[1]}, {mode, filter, {pad}});
        std::copy(fitted.picture.pixels.begin(), fitted.picture.pixels.end(), out);
        if (fitted.region) {
            const double values[4] = {fitted.region->top, fitted.region->left, fitted.region->height, fitted.region->width};
            std::copy_n(values, 4, region);
        }
    } catch (const std::runtime_error &error) {
        std::strncpy(said, error.what(), 255);
        return 1;
    }
    return 0;
}
