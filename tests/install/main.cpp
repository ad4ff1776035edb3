// Scores variants of a slot and runs three steps of GCG: ./consumer <model folder>
#include <ATen/ops/tensor.h>
#include <titer/attacks/prompt/gcg.h>
#include <titer/core/causal_lm.h>
#include <titer/core/session.h>

#include <exception>
#include <iostream>

int main(int argc, char** argv) try {
  const std::string folder = argc > 1 ? argv[1] : ".";
  const auto model = titer::load_model(folder);
  const auto tokenizer = titer::Tokenizer::from_file(folder + "/tokenizer.json");
  const titer::ModelSystem system(model);
  const auto prompt = titer::Prompt::from_text(tokenizer, "Tell me about the planet Saturn. {slot}", "NO WAY");

  const auto session = system.open(prompt);
  const at::Tensor slot = at::tensor(prompt.slot_ids(), at::kLong);
  std::cout << "loss " << session->losses(slot.unsqueeze(0)).item<float>() << '\n';

  const titer::Gcg attack({.num_steps = 3, .search_width = 32, .seed = 1});
  const titer::AttackResult result = attack.run(system, prompt, {.progress = [](const titer::AttackStep& step) {
                                                  std::cout << "step " << step.step << " loss " << step.loss << '\n';
                                                  return true;
                                                }});
  std::cout << "text " << result.text << "\nsuccess " << std::boolalpha << result.success << '\n';
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
