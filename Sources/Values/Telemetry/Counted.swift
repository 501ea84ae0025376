/// A number and what it counts: `1 fault`, `2 faults`.
///
/// The noun is given in the singular. Its plural must end in s.
package func counted(_ number: some BinaryInteger, _ noun: String) -> String {
    "\(number) \(noun)\(number == 1 ? "" : "s")"
}
