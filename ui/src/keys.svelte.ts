/** Keyboard shortcuts: none with a modifier, none while a field has focus, all can be switched off (WCAG 2.1.4). */

export interface Shortcut {
  keys: string[];
  /** How it is shown in the list, when that differs from `keys`. */
  shown?: string;
  does: string;
  run: (key: string) => void;
}

const STORED = 'rehead.keys';
/** Longest time between `g` and the key behind it. */
const PREFIX_MS = 2000;

class Keys {
  on = $state(localStorage.getItem(STORED) !== 'off');
  /** Groups that are active now, the latest last. */
  groups = $state<{ name: string; shortcuts: Shortcut[] }[]>([]);
  /** When `g` was pressed, by the clock of events, which a busy page does not delay. */
  #prefixed = -Infinity;

  toggle(on: boolean): void {
    this.on = on;
    localStorage.setItem(STORED, on ? 'on' : 'off');
  }

  /** Adds shortcuts; returns a function that removes them. */
  add(name: string, shortcuts: Shortcut[]): () => void {
    const group = { name, shortcuts };
    this.groups = [...this.groups, group];
    const added = this.groups[this.groups.length - 1];
    return () => (this.groups = this.groups.filter((other) => other !== added));
  }

  handle(event: KeyboardEvent): void {
    if (!this.on || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target as HTMLElement;
    if (target.closest('input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]')) return;
    // Keys that a control has of its own stay its own.
    if ((event.key === 'Enter' || event.key === ' ') && target.closest('a, button, summary, input')) return;
    if (event.key.startsWith('Arrow') && target.closest('input[type=radio]')) return;
    const pressed = (event.timeStamp - this.#prefixed < PREFIX_MS ? 'g ' : '') + event.key;
    this.#prefixed = event.key === 'g' ? event.timeStamp : -Infinity;
    // A dialog's own keys hide those below it.
    const groups = document.querySelector('dialog[open]') ? this.groups.slice(-1) : [...this.groups].reverse();
    for (const group of groups) {
      const found = group.shortcuts.find((shortcut) => shortcut.keys.includes(pressed));
      if (found) {
        event.preventDefault();
        found.run(pressed);
        return;
      }
    }
  }
}

export const keys = new Keys();
