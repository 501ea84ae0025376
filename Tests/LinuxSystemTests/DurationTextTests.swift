import LinuxSystem
import Testing

struct DurationTextTests {
    @Test(
        arguments: [
            (.zero, "0 s"), (.nanoseconds(1), "1 ms"), (.milliseconds(300), "300 ms"), (.milliseconds(999), "999 ms"),
            (.seconds(1), "1 s"), (.milliseconds(1570), "1.5 s"), (.milliseconds(1050), "1 s"), (.seconds(60), "60 s"),
            (.milliseconds(12_900), "12 s"), (.seconds(Int64.max), "9223372036854775807 s"), (.seconds(-1), "0 s"),
        ] as [(Duration, String)]
    )
    func `a short duration is never shown as zero`(duration: Duration, text: String) {
        #expect(duration.text == text)
    }
}
