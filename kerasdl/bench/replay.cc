// Replays requests to a SavedModel as a server written in C++ does: without any Python.
//
//   replay SAVED_MODEL REQUESTS [OP_LIBRARY...]
//
// A folder of REQUESTS, one per request and taken in the order of their names, holds the file
// `signature`, a name, and a file `in/<name>` per input, a serialised TensorProto. The answer is
// written to `out/<name>` likewise; a request that fails leaves its message in `error`.

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor.pb.h"

namespace fs = std::filesystem;

std::string Read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void Write(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

absl::Status Answer(const tensorflow::SavedModelBundle& model, const fs::path& request) {
  const std::string name = Read(request / "signature");
  const auto found = model.GetSignatures().find(name);
  if (found == model.GetSignatures().end()) {
    return absl::NotFoundError("no signature " + name);
  }
  std::vector<std::pair<std::string, tensorflow::Tensor>> inputs;
  for (const auto& [input, info] : found->second.inputs()) {
    tensorflow::TensorProto proto;
    tensorflow::Tensor tensor;
    if (!proto.ParseFromString(Read(request / "in" / input)) || !tensor.FromProto(proto)) {
      return absl::InvalidArgumentError("no tensor for " + input);
    }
    inputs.emplace_back(info.name(), tensor);
  }
  std::vector<std::string> names, outputs;
  for (const auto& [output, info] : found->second.outputs()) {
    names.push_back(output);
    outputs.push_back(info.name());
  }
  std::vector<tensorflow::Tensor> answers;
  const absl::Status status = model.session->Run(inputs, outputs, {}, &answers);
  if (!status.ok()) return status;
  fs::create_directory(request / "out");
  for (size_t i = 0; i < names.size(); ++i) {
    tensorflow::TensorProto proto;
    answers[i].AsProtoField(&proto);
    Write(request / "out" / names[i], proto.SerializeAsString());
  }
  return absl::OkStatus();
}

int main(int argc, char** argv) {
  for (int i = 3; i < argc; ++i) {
    if (!dlopen(argv[i], RTLD_NOW | RTLD_LOCAL)) {
      std::cerr << dlerror() << std::endl;
      return 1;
    }
  }
  tensorflow::SavedModelBundle model;
  const absl::Status status = tensorflow::LoadSavedModel({}, {}, argv[1], {"serve"}, &model);
  if (!status.ok()) {
    std::cerr << status << std::endl;
    return 1;
  }
  std::vector<fs::path> requests;
  for (const auto& entry : fs::directory_iterator(argv[2])) requests.push_back(entry.path());
  std::sort(requests.begin(), requests.end());
  for (const fs::path& request : requests) {
    const absl::Status answer = Answer(model, request);
    if (!answer.ok()) Write(request / "error", std::string(answer.message()));
  }
  return 0;
}
