import Foundation
import Glibc
import Synchronization

/// The whole terminal, for a table that is drawn again and again.
///
/// The terminal shows its other screen meanwhile, and gives each key at once and unseen.
final class TopScreen: Sendable {
    private let former: termios
    private let hasLeft = Atomic<Bool>(false)

    /// Takes the terminal; nil if standard input or output is none.
    init?() {
        var mode = termios()
        guard isatty(STDOUT_FILENO) == 1, tcgetattr(STDIN_FILENO, &mode) == 0,
            ProcessInfo.processInfo.environment["TERM", default: "dumb"] != "dumb"
        else { return nil }
        former = mode
        // Ctrl-C and Ctrl-Z come as keys: a program that is stopped could not give the screen back.
        mode.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG)
        guard tcsetattr(STDIN_FILENO, TCSAFLUSH, &mode) == 0 else { return nil }
        Terminal.show(.other)
    }

    /// Gives the terminal back as it was.
    func leave() {
        guard !hasLeft.exchange(true, ordering: .relaxed) else { return }
        Terminal.show(.own)
        var mode = former
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &mode)
    }

    /// The columns and rows of the terminal.
    var size: (width: Int, height: Int) {
        var size = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else {
            return (80, 24)
        }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    /// Draws lines in place of those before; the last line says how many more there are if they do not fit.
    func draw(_ lines: [String], height: Int) {
        var shown = Array(lines.prefix(height))
        if lines.count > height, height > 1 { shown[height - 1] = "… \(lines.count - height + 1) more" }
        Terminal.redraw(shown)
    }

    /// Calls a closure on a thread of its own when the user wants to quit, also while an address is slow to answer.
    func onQuit(_ quit: @escaping @Sendable () -> Void) {
        Thread.detachNewThread {
            while !TopScreen.readsQuit() {}
            quit()
        }
    }

    /// The keys that quit: q, Ctrl-C and Ctrl-D.
    private static let quitting: Set<UInt8> = [UInt8(ascii: "q"), UInt8(ascii: "Q"), 3, 4]

    /// Waits for keys; returns whether one of them quits.
    private static func readsQuit() -> Bool {
        var keys = [UInt8](repeating: 0, count: 64)
        let count = read(STDIN_FILENO, &keys, keys.count)
        if count < 0, errno == EINTR { return false }
        // The terminal is gone if it gives nothing.
        return count <= 0 || keys.prefix(count).contains { quitting.contains($0) }
    }
}
