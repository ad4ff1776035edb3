// Fine-tunes two adapters at once and merges the first: ./finetuner <model folder> <folder for the adapter>
#include <titer/core/causal_lm.h>
#include <titer/core/finetune.h>
#include <titer/core/lora_adapter.h>

#include <exception>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <vector>

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("expected a model folder and one for the adapter");
  const auto model = titer::load_model(argv[1]);
  const auto data = std::make_shared<const std::vector<titer::TrainingSequence>>(std::vector<titer::TrainingSequence>{
      {.ids = {3, 5, 7, 11, 13}, .answers = {{.begin = 2, .end = 5}}},
      {.ids = {2, 4, 8, 16}, .answers = {{.begin = 1, .end = 4}}},
  });
  const titer::FinetuneOptions options{.lora_rank = 4, .learning_rate = 0.01, .batch_size = 2, .num_epochs = 10};
  titer::FinetuneOptions other = options;
  other.learning_rate = 0.001;
  const titer::Finetuning finetuning = titer::finetune(*model, {{options, data}, {other, data}});
  for (const titer::FinetuneResult& run : finetuning.runs)
    std::cout << "loss " << run.trace.front().loss << ' ' << run.trace.back().loss << '\n';

  titer::save_lora_adapter(*finetuning.runs.front().adapter, argv[2]);
  const auto tuned = titer::merge(*model, titer::load_lora_adapter(argv[2]));
  // No rate, so that the only step shows the loss of the merged weights.
  const titer::FinetuneOptions look{.learning_rate = 1e-12, .batch_size = 2};
  std::cout << "merged " << titer::finetune(*tuned, {{look, data}}).runs.front().trace.front().loss << '\n';
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
