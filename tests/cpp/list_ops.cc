// Prints every op that the TensorFlow library it is linked with defines and has a kernel for on a CPU: how the list in
// emotion_tf/serving/server_ops.txt was made. TF is the folder tensorflow/ of an unpacked wheel:
//   g++ -std=c++17 -I$TF/include list_ops.cc -L$TF -Wl,--no-as-needed -l:libtensorflow_cc.so.2
//       -l:libtensorflow_framework.so.2 -Wl,-rpath,$TF -o list_ops && ./list_ops
#include <iostream>
#include <set>
#include <string>

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"

int main() {
  const tensorflow::KernelList kernels = tensorflow::GetAllRegisteredKernels();
  std::set<std::string> on_cpu;
  // DEFAULT: on any device, as NoOp
  for (const auto& kernel : kernels.kernel()) {
    if (kernel.device_type() == "CPU" || kernel.device_type() == "DEFAULT") on_cpu.insert(kernel.op());
  }
  tensorflow::OpList ops;
  tensorflow::OpRegistry::Global()->Export(/*include_internal=*/false, &ops);
  for (const auto& op : ops.op()) {
    if (on_cpu.count(op.name())) std::cout << op.name() << "\n";
  }
}
