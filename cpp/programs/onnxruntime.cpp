// Segment a picture with ONNX Runtime: edgeseg-onnxruntime BUNDLE PICTURE.png LABELS.png
#include <filesystem>
#include <memory>

#include <onnxruntime_cxx_api.h>

#include "program.hpp"

namespace {

std::filesystem::path graph_of(const edgeseg::Bundle &bundle)
{
    const std::filesystem::path own = bundle.path / "ort" / "model.onnx";  // written for ONNX Runtime's kernels
    return std::filesystem::is_regular_file(own) ? own : bundle.file("model.onnx");
}

struct Engine {
    Ort::Env environment{ORT_LOGGING_LEVEL_WARNING, "edgeseg"};
    Ort::Session session;
    Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<Ort::Value> outputs;

    explicit Engine(const std::filesystem::path &graph) : session(environment, graph.c_str(), options()) {}

    static Ort::SessionOptions options()
    {
        Ort::SessionOptions made;
        made.SetGraphOptimizationLevel(GraphOptimizationLevel::ORT_ENABLE_ALL);
        return made;
    }

    edgeseg::Logits run(const edgeseg::Picture &picture)
    {
        const std::int64_t shape[4] = {1, picture.size.height, picture.size.width, picture.channels};
        auto *pixels = const_cast<std::uint8_t *>(picture.pixels.data());
        const Ort::Value image = Ort::Value::CreateTensor<std::uint8_t>(memory, pixels, picture.pixels.size(), shape, 4);
        Ort::AllocatorWithDefaultOptions allocator;
        const Ort::AllocatedStringPtr name = session.GetInputNameAllocated(0, allocator);
        const char *inputs[] = {name.get()}, *wanted[] = {"logits"};
        outputs = session.Run(Ort::RunOptions{nullptr}, inputs, &image, 1, wanted, 1);
        const std::vector<std::int64_t> got = outputs[0].GetTensorTypeAndShapeInfo().GetShape();
        return {outputs[0].GetTensorData<float>(), static_cast<int>(got.at(1)), static_cast<int>(got.at(2)), static_cast<int>(got.at(3))};
    }
};

edgeseg::Network open_network(const edgeseg::Bundle &bundle)
{
    const auto engine = std::make_shared<Engine>(graph_of(bundle));
    return [engine](const edgeseg::Picture &picture) { return engine->run(picture); };
}

}  // namespace

int main(int count, char **words)
{
    return edgeseg::run_program(count, words, open_network);
}
