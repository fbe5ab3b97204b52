// Loads an export and answers requests, as TensorFlow Serving does: LoadSavedModel and Session::Run, with the text ops
// taken into the process, and without Python.
//
//   run_export EXPORT REQUESTS ANSWERS OP_LIBRARY...
//
// REQUESTS and ANSWERS are TFRecords of NamedTensorProto. One without a tensor begins a request and names its
// signature; the tensors after it are its inputs, or its outputs.
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/c/c_api.h"
#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/lib/io/record_reader.h"
#include "tensorflow/core/lib/io/record_writer.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/protobuf/meta_graph.pb.h"
#include "tensorflow/core/protobuf/named_tensor.pb.h"

namespace tf = tensorflow;

namespace {

struct Request {
  std::string signature;
  std::vector<std::pair<std::string, tf::Tensor>> inputs;
};

void Check(const absl::Status& status, const std::string& what) {
  if (status.ok()) return;
  std::cerr << what << ": " << status.ToString() << "\n";
  std::exit(1);
}

void LoadOps(const char* library) {
  std::unique_ptr<TF_Status, decltype(&TF_DeleteStatus)> status(TF_NewStatus(), TF_DeleteStatus);
  TF_LoadLibrary(library, status.get());
  if (TF_GetCode(status.get()) == TF_OK) return;
  std::cerr << library << ": " << TF_Message(status.get()) << "\n";
  std::exit(1);
}

std::vector<Request> Read(const std::string& path) {
  std::unique_ptr<tf::RandomAccessFile> file;
  Check(tf::Env::Default()->NewRandomAccessFile(path, &file), path);
  tf::io::SequentialRecordReader reader(file.get());
  std::vector<Request> requests;
  tf::tstring record;
  while (reader.ReadRecord(&record).ok()) {
    tf::NamedTensorProto named;
    if (!named.ParseFromArray(record.data(), static_cast<int>(record.size()))) std::exit(1);
    if (!named.has_tensor()) {
      requests.push_back({named.name(), {}});
      continue;
    }
    tf::Tensor tensor;
    if (!tensor.FromProto(named.tensor())) std::exit(1);
    requests.back().inputs.emplace_back(named.name(), tensor);
  }
  return requests;
}

void Write(tf::io::RecordWriter* writer, const std::string& name, const tf::Tensor* tensor) {
  tf::NamedTensorProto named;
  named.set_name(name);
  if (tensor != nullptr) tensor->AsProtoField(named.mutable_tensor());
  Check(writer->WriteRecord(named.SerializeAsString()), "answers");
}

void Answer(const tf::SavedModelBundle& model, const Request& request, tf::io::RecordWriter* writer) {
  const auto& signatures = model.GetSignatures();
  const auto found = signatures.find(request.signature);
  if (found == signatures.end()) Check(absl::NotFoundError("no such signature"), request.signature);
  std::vector<std::pair<std::string, tf::Tensor>> inputs;
  for (const auto& input : request.inputs) {
    inputs.emplace_back(found->second.inputs().at(input.first).name(), input.second);
  }
  std::vector<std::string> names, fetches;
  for (const auto& output : found->second.outputs()) {
    names.push_back(output.first);
    fetches.push_back(output.second.name());
  }
  std::vector<tf::Tensor> outputs;
  Check(model.session->Run(inputs, fetches, {}, &outputs), request.signature);
  Write(writer, request.signature, nullptr);
  for (size_t i = 0; i < names.size(); ++i) Write(writer, names[i], &outputs[i]);
}

// That no Python came in with a library, either.
void RefusePython() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("libpython") == std::string::npos && line.find("/python3") == std::string::npos) continue;
    if (line.find("site-packages") != std::string::npos) continue;  // where the libraries of the wheels lie
    std::cerr << "There is Python in the process: " << line << "\n";
    std::exit(1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: run_export EXPORT REQUESTS ANSWERS OP_LIBRARY...\n";
    return 2;
  }
  for (int i = 4; i < argc; ++i) LoadOps(argv[i]);
  tf::SavedModelBundle model;
  Check(tf::LoadSavedModel({}, {}, argv[1], {"serve"}, &model), "LoadSavedModel");
  const std::vector<Request> requests = Read(argv[2]);
  std::unique_ptr<tf::WritableFile> file;
  Check(tf::Env::Default()->NewWritableFile(argv[3], &file), argv[3]);
  tf::io::RecordWriter writer(file.get());
  for (const Request& request : requests) Answer(model, request, &writer);
  Check(writer.Close(), argv[3]);
  Check(file->Close(), argv[3]);
  RefusePython();
  std::cout << requests.size() << " requests\n";
  return 0;
}
