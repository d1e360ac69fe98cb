// Segment a picture with OpenVINO: edgeseg-openvino BUNDLE PICTURE.png LABELS.png
#include <memory>

#include <openvino/openvino.hpp>

#include "program.hpp"

namespace {

edgeseg::Network open_network(const edgeseg::Bundle &bundle)
{
    static ov::Core core;
    const auto precision = bundle.manifest.precision == "bf16" ? ov::element::bf16 : ov::element::f32;
    const auto model = core.read_model(bundle.file("openvino/model.xml").string());
    auto compiled = core.compile_model(model, "CPU", ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                                       ov::hint::inference_precision(precision));  // its own default may be f16 or bf16
    auto request = std::make_shared<ov::InferRequest>(compiled.create_infer_request());
    return [request](const edgeseg::Picture &picture) {
        const ov::Shape shape{1, static_cast<std::size_t>(picture.size.height), static_cast<std::size_t>(picture.size.width),
                              static_cast<std::size_t>(picture.channels)};
        request->set_input_tensor(ov::Tensor(ov::element::u8, shape, const_cast<std::uint8_t *>(picture.pixels.data())));
        request->infer();
        const ov::Tensor logits = request->get_output_tensor();
        const ov::Shape &got = logits.get_shape();
        return edgeseg::Logits{logits.data<float>(), static_cast<int>(got.at(1)), static_cast<int>(got.at(2)), static_cast<int>(got.at(3))};
    };
}

}  // namespace

int main(int count, char **words)
{
    return edgeseg::run_program(count, words, open_network);
}
