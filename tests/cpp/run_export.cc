// Loads an export and answers requests, as TensorFlow Serving does: LoadSavedModel and Session::Run, with the text ops
// taken into the process, and without Python. It calls them by TensorFlow's C interface, whose headers compile at once.
//
//   run_export EXPORT REQUESTS ANSWERS OP_LIBRARY...
//
// REQUESTS and ANSWERS are made of 64-bit numbers and of bytes that follow their number. A request has the number of its
// inputs and the inputs, then the number of its outputs and their names. An input is a name, a type of data (of
// TF_DataType), the number of axes, their sizes, and the values: the bytes of each string, or the bytes of all numbers.
// An answer is its outputs without their names.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

namespace {

[[noreturn]] void Fail(const std::string& what) {
  std::cerr << what << "\n";
  std::exit(1);
}

void Check(const TF_Status* status, const std::string& what) {
  if (TF_GetCode(status) != TF_OK) Fail(what + ": " + TF_Message(status));
}

int64_t ReadNumber(std::istream& file) {
  int64_t number = 0;
  if (!file.read(reinterpret_cast<char*>(&number), sizeof number)) Fail("The requests end too soon.");
  return number;
}

std::string ReadBytes(std::istream& file) {
  std::string bytes(ReadNumber(file), '\0');
  if (!file.read(bytes.data(), bytes.size())) Fail("The requests end too soon.");
  return bytes;
}

void WriteNumber(std::ostream& file, int64_t number) {
  file.write(reinterpret_cast<const char*>(&number), sizeof number);
}

void WriteBytes(std::ostream& file, const char* bytes, size_t size) {
  WriteNumber(file, size);
  file.write(bytes, size);
}

TF_Tensor* ReadTensor(std::istream& file) {
  const auto type = static_cast<TF_DataType>(ReadNumber(file));
  std::vector<int64_t> sizes(ReadNumber(file));
  int64_t count = 1;
  for (int64_t& size : sizes) count *= size = ReadNumber(file);
  if (type != TF_STRING) {
    const std::string bytes = ReadBytes(file);
    TF_Tensor* tensor = TF_AllocateTensor(type, sizes.data(), sizes.size(), bytes.size());
    std::memcpy(TF_TensorData(tensor), bytes.data(), bytes.size());
    return tensor;
  }
  TF_Tensor* tensor = TF_AllocateTensor(type, sizes.data(), sizes.size(), count * sizeof(TF_TString));
  auto* strings = static_cast<TF_TString*>(TF_TensorData(tensor));
  for (int64_t i = 0; i < count; ++i) {
    const std::string bytes = ReadBytes(file);
    TF_TString_Init(&strings[i]);
    TF_TString_Copy(&strings[i], bytes.data(), bytes.size());
  }
  return tensor;
}

void WriteTensor(std::ostream& file, const TF_Tensor* tensor) {
  WriteNumber(file, TF_TensorType(tensor));
  WriteNumber(file, TF_NumDims(tensor));
  for (int i = 0; i < TF_NumDims(tensor); ++i) WriteNumber(file, TF_Dim(tensor, i));
  const void* data = TF_TensorData(tensor);
  if (TF_TensorType(tensor) != TF_STRING) {
    WriteBytes(file, static_cast<const char*>(data), TF_TensorByteSize(tensor));
    return;
  }
  const auto* strings = static_cast<const TF_TString*>(data);
  for (int64_t i = 0; i < TF_TensorElementCount(tensor); ++i) {
    WriteBytes(file, TF_TString_GetDataPointer(&strings[i]), TF_TString_GetSize(&strings[i]));
  }
}

// A tensor of the graph by its name: "op:index".
TF_Output ReadOutput(std::istream& file, TF_Graph* graph) {
  const std::string name = ReadBytes(file);
  const size_t colon = name.rfind(':');
  TF_Operation* operation = TF_GraphOperationByName(graph, name.substr(0, colon).c_str());
  if (operation == nullptr) Fail(name + ": no such tensor");
  return {operation, std::stoi(name.substr(colon + 1))};
}

void Answer(TF_Session* session, TF_Graph* graph, std::istream& requests, std::ostream& answers, TF_Status* status) {
  std::vector<TF_Output> inputs, outputs;
  std::vector<TF_Tensor*> values;
  for (int64_t left = ReadNumber(requests); left > 0; --left) {
    inputs.push_back(ReadOutput(requests, graph));
    values.push_back(ReadTensor(requests));
  }
  for (int64_t left = ReadNumber(requests); left > 0; --left) outputs.push_back(ReadOutput(requests, graph));
  std::vector<TF_Tensor*> results(outputs.size());
  TF_SessionRun(session, nullptr, inputs.data(), values.data(), inputs.size(), outputs.data(), results.data(),
                outputs.size(), nullptr, 0, nullptr, status);
  Check(status, "Session::Run");
  for (TF_Tensor* tensor : values) TF_DeleteTensor(tensor);
  for (TF_Tensor* tensor : results) {
    WriteTensor(answers, tensor);
    TF_DeleteTensor(tensor);
  }
}

// That no Python came in with a library, either.
void RefusePython() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("libpython") == std::string::npos && line.find("/python3") == std::string::npos) continue;
    if (line.find("site-packages") != std::string::npos) continue;  // where the libraries of the wheels lie
    Fail("There is Python in the process: " + line);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: run_export EXPORT REQUESTS ANSWERS OP_LIBRARY...\n";
    return 2;
  }
  TF_Status* status = TF_NewStatus();
  for (int i = 4; i < argc; ++i) {
    TF_LoadLibrary(argv[i], status);
    Check(status, argv[i]);
  }
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(options, nullptr, argv[1], tags, 1, graph, nullptr, status);
  Check(status, "LoadSavedModel");
  std::ifstream requests(argv[2], std::ios::binary);
  std::ofstream answers(argv[3], std::ios::binary);
  int count = 0;
  for (; requests.peek() != std::ifstream::traits_type::eof(); ++count) {
    Answer(session, graph, requests, answers, status);
  }
  if (!answers.flush()) Fail(std::string(argv[3]) + ": cannot write");
  RefusePython();
  std::cout << count << " requests\n";
  return 0;
}
